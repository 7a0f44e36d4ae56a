"""What runs say of the eight findings that were expected, and the guidelines that follow."""

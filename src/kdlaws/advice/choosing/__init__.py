"""Which model to take: measured and predicted ones under constraints."""

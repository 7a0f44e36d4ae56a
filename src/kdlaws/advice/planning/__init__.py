"""What a budget buys: costs, the search for the best student, how sure it is, break-even."""

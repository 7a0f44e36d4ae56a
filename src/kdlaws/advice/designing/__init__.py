"""Which runs to make: what a proposed study would tell, and what to add to pilots."""

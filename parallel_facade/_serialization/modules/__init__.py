"""Which modules a worker can import, and what the caller changed in them."""

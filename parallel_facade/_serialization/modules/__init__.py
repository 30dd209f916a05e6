"""Decide which modules a worker can import, and send what the caller changed in them."""

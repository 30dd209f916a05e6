"""What ran where and when, and what limits it."""

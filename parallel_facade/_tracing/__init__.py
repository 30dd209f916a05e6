"""Records what ran where and when, and finds what limits it."""

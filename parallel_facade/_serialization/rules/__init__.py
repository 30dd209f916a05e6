"""Rules that say how each kind of object travels."""

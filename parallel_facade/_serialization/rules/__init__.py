"""How each kind of object travels."""

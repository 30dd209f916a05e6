"""Convert objects to bytes and back."""

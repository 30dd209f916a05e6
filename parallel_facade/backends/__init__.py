"""The ways to run calls; `base` says what a back-end is."""

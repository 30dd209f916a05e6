"""Ways to run calls; `base` defines what a back-end is."""

"""Code that runs in a worker, whichever back-end has started it."""

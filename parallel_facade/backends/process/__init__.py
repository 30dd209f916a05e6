"""Processes of this machine: a private channel to each, and one thread that talks to all."""

"""Modules that every package may use: errors, deadlines, threads, plain data."""

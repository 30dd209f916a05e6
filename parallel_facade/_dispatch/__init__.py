"""Runs calls: chunks, order, retries, deadlines, results."""

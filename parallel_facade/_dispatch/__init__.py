"""The engine of a call: chunks, order, retries, deadlines, results."""

"""Run calls in third-party clusters and executors."""

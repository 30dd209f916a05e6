"""Clusters and executors of others."""

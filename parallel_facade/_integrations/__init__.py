"""The command line, joblib, and faults for tests."""

"""What the user sees while a call runs: progress, logs, prints and warnings of tasks."""

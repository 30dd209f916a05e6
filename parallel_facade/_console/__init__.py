"""Output for the user while a call runs: progress, logs, prints and warnings of tasks."""

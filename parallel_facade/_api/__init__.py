"""What the public names are: verbs, pools, results, explain."""

"""The public names: verbs, pools, results, explain."""

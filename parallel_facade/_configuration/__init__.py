"""Settings, the available back-ends, and the number of usable CPUs."""

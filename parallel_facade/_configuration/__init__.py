"""Settings, the back-ends there are, and how many CPUs may be used."""

"""Where the time of a policy goes, and which of its choices buy none."""

"""The services of a cluster as child processes on one machine, on loopback only."""

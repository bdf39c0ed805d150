"""Examples: job files, each run by a test, and the demonstration that `make demo` runs."""

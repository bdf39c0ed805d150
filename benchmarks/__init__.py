"""Benchmarks: one script a claim, each printing one JSON line last and keeping it under `benchmarks/results/`."""

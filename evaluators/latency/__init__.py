"""Latency known before anything runs: operators of a policy, their measured times, and a fitted correction."""

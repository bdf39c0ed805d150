"""Latency tables as commands: measured on this machine, corrected, shown, compared, joined, imported."""

"""Searches as jobs on a Ray cluster: submitted, watched, stopped and continued from any terminal."""

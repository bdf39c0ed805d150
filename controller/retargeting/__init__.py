"""A finished study on another target: its scores carried over, its gaps filled, both fronts shown."""

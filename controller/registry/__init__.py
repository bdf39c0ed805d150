"""Registered models: a verified artifact becomes a version of one, and an alias says which version is in use."""

CHAMPION = "champion"
"""Alias of the version in use where nothing else is named."""

"""A model in use against its constraint on new data, and a new search where it falls below."""

"""Versions of the schema, in the order in which Alembic applies them."""

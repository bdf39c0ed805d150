"""What can be chosen: formats, units of a model, policies, and the space that they span."""

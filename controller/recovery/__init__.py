"""Training of what a policy made of a model, as trials of Ray Tune."""

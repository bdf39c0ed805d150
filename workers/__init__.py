"""What runs on a worker: the model and its data, variants, trials, export and verification."""

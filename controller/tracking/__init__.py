"""MLflow, from an outbox: what is recorded, how it is sent, and what is wrong where it is not."""

"""The training loop, batches, checkpoints, validation, and stored predictions of the moments network."""

"""The training loop and what surrounds it: batches, validation, checkpoints, and predictions of the moments network kept for later."""

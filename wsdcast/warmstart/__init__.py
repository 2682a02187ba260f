"""The method: knows tensors, contexts and targets, nothing of weather, files or images."""

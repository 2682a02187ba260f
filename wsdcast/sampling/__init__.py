"""Sampling from trained networks: samplers, batches, threads on a CPU, and acceleration on a GPU."""

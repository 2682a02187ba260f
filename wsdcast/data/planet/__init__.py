"""The simulated planet."""

"""Measures on the user's machine what the project promises, always as a ratio to what bounds the work in the same run."""

"""The four stages: each a function from a recipe and a run directory to artefacts."""

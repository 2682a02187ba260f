"""Run directories: recipes, artefacts, processes, progress, errors, and the checks and threads that all stages share."""

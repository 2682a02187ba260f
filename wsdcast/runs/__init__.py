"""Run directories and what works on them: recipes, artefacts, processes, progress, errors."""

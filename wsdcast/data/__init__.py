"""Variables, sources, grids, regridding, the simulated planet and the prepared store."""

"""Sources of wind, grids, regridding, the simulated planet and the prepared store."""

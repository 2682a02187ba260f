"""Sources, grids, regridding, the simulated planet and the prepared record."""

"""The Zarr stores that this package writes and reads."""

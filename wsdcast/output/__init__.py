"""What comes out of a store of forecasts: products on the grid and at places, and files of other formats."""

"""Training of the networks of a weather recipe, one module for each network."""

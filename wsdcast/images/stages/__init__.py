"""The stages of the image pipeline, one function each."""

"""The stages of the weather pipeline, one function each."""

"""Images: sources, decoding, the prepared store, and the tasks."""

"""Images: sources, decoding, the prepared store, and what is hidden of them."""

"""The stores that this package writes and reads."""

"""Images as data: where they come from, what is hidden of them, scores and pictures."""

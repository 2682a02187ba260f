"""From trained networks to samples: batches, threads, what makes it fast on a GPU."""

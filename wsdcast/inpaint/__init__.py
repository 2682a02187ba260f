"""The stages of the image benchmark: prepare, train, sample, score, study."""

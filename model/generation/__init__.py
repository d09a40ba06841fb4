"""Generation: requests, voices, batches, streams."""

"""What is measured of an utterance."""

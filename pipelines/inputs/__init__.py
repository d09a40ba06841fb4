"""What comes in: manifest, decoding, scan."""

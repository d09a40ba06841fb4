"""The three-stage curriculum of the speech model."""

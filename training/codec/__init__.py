"""The codec's trainer."""

"""A sample as a sequence of positions, and samples in rows."""

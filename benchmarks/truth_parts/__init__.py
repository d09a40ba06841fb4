"""Parts of `benchmarks/truth.py`, a file a subject."""

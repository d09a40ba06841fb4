"""Corpora as others write them, read as entries."""

"""Helpers of the benchmarks: tables, arguments, datasets, checkpoints and readers."""

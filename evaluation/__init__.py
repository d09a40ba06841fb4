"""Measures of trained models on the report's benchmarks."""

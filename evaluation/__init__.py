"""Evaluation of speech systems on the report's benchmarks (report section 4)."""

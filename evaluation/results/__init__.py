"""Results: rows, statistics, comparisons, report, MLflow."""

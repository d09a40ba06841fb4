"""DeepSpeed's configurations that the trainer runs with."""

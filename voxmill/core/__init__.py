"""What every part stands on; imports nothing else of the project."""

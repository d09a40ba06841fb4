"""Prompts of the judge, a text file each."""

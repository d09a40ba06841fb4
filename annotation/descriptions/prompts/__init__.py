"""Prompts as text files, `NAME.vN.txt`. A changed prompt is a new file: replies are cached under its content."""

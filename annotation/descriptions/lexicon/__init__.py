"""One file of words a language: how facts are said, and how descriptions are read back."""

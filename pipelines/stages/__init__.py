"""The stages of `annotate`, each a pure function on records and audio."""

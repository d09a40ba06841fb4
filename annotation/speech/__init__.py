"""Labels of speech: transcripts, word times, checks of the text."""

"""The report's part on correcting: the clips whose texts are trusted least, and the file to correct them in."""

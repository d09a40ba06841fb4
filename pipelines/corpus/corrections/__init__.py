"""What people correct of clips: the file that they give, and how it changes clips."""

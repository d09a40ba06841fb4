"""Work units: names, files, journal, workspace."""

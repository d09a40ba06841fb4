"""Work units: names, files, attempts, probes, workspace."""

"""Batches ready before a step asks for them: rows planned by a process once a node, read by threads of each rank."""

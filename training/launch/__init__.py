"""Starting ranks on Ray."""

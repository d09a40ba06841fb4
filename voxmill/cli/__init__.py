"""The command `voxmill`, a file a group of commands."""

"""`python -m voxmill` is the `voxmill` command."""

from voxmill.cli import main

main()

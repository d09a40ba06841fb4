"""`python -m voxmill` is the `voxmill` command."""

from voxmill.cli.app import main

main()

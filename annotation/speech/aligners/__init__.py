"""Aligners by name, behind one interface: `aligner.Aligner`."""

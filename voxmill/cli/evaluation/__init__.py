"""`voxmill evaluate`, `voxmill listening` and what they measure."""

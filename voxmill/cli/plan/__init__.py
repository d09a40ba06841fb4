"""`voxmill plan`: what a run will take, before any machine is reserved; the sums are in `cluster/planner/`."""

"""The files that start voxmill on a cluster, all of them rendered from one values file."""

"""VoxCPM2 in pure PyTorch (report sections 3.1-3.4 and 3.7). Imports nothing of the other parts but `voxmill`."""

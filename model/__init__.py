"""VoxCPM2 in pure PyTorch (report sections 3.1-3.5 and 3.7). Imports `voxmill.core` and `voxmill.data` alone."""

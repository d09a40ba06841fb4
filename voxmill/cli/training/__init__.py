"""`voxmill init`, `voxmill train` and `voxmill train-vae`."""

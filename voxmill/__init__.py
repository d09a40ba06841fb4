"""voxmill: recordings to labelled clips, training and evaluation for VoxCPM2."""

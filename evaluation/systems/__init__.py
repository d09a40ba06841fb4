"""Systems under evaluation: folders of wavs, commands, checkpoints, speech endpoints."""

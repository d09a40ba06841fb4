"""Training of VoxCPM2's parts; reads datasets through the shard format, knows nothing of Ray."""

"""Training of VoxCPM2 and of its codec. Reads what `pipelines` writes, through the shard format; knows no Ray Data."""

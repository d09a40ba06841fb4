"""Training of VoxCPM2: curriculum, mixture, sample order, packing. Reads what `pipelines` writes; knows no Ray Data."""

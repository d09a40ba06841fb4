"""voxmill: recordings to labelled clips, training and evaluation for VoxCPM2."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("voxmill")
except PackageNotFoundError:  # a checkout on the path of a cluster's worker, not installed
    __version__ = "0+unknown"

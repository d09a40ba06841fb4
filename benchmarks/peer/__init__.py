"""Peers: the released code and NeMo Curator."""

"""The Ray Data graph and what runs units through it."""

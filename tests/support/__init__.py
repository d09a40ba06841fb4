"""Servers, runs and browsers that tests share."""

"""Tests of the labellers."""

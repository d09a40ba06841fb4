"""Tests of what makes samples."""

"""Tests of the report and the dataset card."""

"""Tests of the planner and the deployment files."""

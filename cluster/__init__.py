"""Deployment files (Ray, KubeRay, DeepSpeed, a container) and the planner; imports no other part of voxmill."""

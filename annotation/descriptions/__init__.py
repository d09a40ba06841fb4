"""Descriptions of voice and style, and their verification."""

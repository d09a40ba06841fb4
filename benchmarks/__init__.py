"""Measurements that a person runs by `python benchmarks/NAME.py`; each ends with a table and one line of JSON."""

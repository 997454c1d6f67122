"""Measurements against baselines: `prolip bench data`."""

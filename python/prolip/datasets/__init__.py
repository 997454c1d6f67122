"""Builders of shards from real pictures: emoji (the demo's), class folders or image and text pairs, and tables.

Each builder is a typed function with its own configuration: `build_emoji`, `build_folder`, `build_csv`.
"""

"""Builders of shards from real pictures: emoji (the demo's), class folders or image and text pairs, and tables.

Each builder is a typed function with its own configuration: `build_emoji`, `build_folder`, `build_csv`; `build_suites`
makes data sets to evaluate on of what `build_emoji` wrote.
"""

"""The demo: emoji shards, its suite of figures, its report, and the run from nothing to all three."""

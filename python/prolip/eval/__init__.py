"""Evaluation: one file runs a model (`embed`), the rest are pure functions of Gaussians (SPEC §9)."""

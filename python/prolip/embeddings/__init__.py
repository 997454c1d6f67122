"""Embed images and captions, store the Gaussians, search, rank and filter them."""

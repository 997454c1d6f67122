"""Measures of embeddings: pure functions of Gaussians, on any device, wherever the embeddings come from."""

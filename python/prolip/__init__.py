"""Probabilistic language-image pre-training: Gaussian embeddings of pictures and captions (arXiv:2410.18857).

Import what you need from where it lives: `prolip.data`, `prolip.models`, `prolip.losses`, `prolip.gaussian`,
`prolip.eval`. This module stays light, so that `import prolip` costs nothing.
"""

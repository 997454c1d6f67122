"""The demo on emoji."""

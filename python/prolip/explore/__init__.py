"""A page in the browser on which a person sees what a model is unsure about."""

"""Mean and standard deviation that images are normalised with: those of OpenAI's CLIP, as in all released models."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue, in [0, 1]."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue, in [0, 1]."""

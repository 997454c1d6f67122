"""Mean and standard deviation for normalising images: those of OpenAI's CLIP, as in all released models."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green and blue, for pixel values in [0, 1]."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Standard deviation of red, green and blue, for pixel values in [0, 1]."""

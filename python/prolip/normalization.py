"""How pictures are normalised: the constants of OpenAI's CLIP, which every released model was trained with."""

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of red, green and blue, as shares of 255."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

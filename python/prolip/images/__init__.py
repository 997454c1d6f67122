"""Images as models take them: found, prepared with Pillow's pixels, normalised, cut into patches."""

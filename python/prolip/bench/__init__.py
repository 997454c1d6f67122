"""`prolip bench`: compare the loader and the JPEG decoder with others."""

"""Files here and in object stores, and what is written in them."""

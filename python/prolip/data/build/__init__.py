"""Write WebDataset shards from images: class folders, image and text pairs, tables."""

"""Write WebDataset shards from your own images: class folders, images with text files, tables."""

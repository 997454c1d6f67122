"""Write WebDataset shards from your own images."""

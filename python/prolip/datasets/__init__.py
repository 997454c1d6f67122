"""Images with a label or captions, in folders, shards and tables, from one reader."""

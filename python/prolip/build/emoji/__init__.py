"""The emoji data: art, names, captions and splits, written as shards and as datasets for the suites."""

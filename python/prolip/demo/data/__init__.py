"""The emoji: their art, names, captions and splits, written as shards and as data sets for the suites."""

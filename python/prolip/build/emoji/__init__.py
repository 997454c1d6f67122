"""The emoji data, written as shards and as datasets for the suites."""

"""The tests and `make gpu`. A package, so that no other package named `tests` is imported instead."""

"""The tests, and the parts of `make gpu`: a package, so that no other one of this name is found first."""

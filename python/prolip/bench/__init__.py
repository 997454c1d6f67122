"""`prolip bench data`: measure the loader beside baselines."""

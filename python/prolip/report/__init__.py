"""Pages and charts: of a suite, and of runs side by side."""

"""HTML pages and SVG charts: the page of a suite, and the page of several runs."""

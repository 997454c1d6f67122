"""HTML pages, SVG charts and tables: the page of a suite, and the page of several runs."""

"""HTML pages, SVG charts and tables."""

"""`prolip explore`: a page in the browser for trying a model on images and captions."""

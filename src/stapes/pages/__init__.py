"""Results and clips as HTML pages."""

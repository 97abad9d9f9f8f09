"""Training data: rendered heads, and clips with point tracks."""

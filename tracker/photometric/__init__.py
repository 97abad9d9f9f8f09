"""Colours: pictures of the head, its albedo and light, and the texture of a clip."""

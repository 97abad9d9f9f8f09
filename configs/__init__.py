"""The presets, as a package so that an installed copy finds them."""

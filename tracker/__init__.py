"""Monocular head tracking: video in, head-model parameters per frame out."""

__version__ = "0.1.0"

"""Scores for head trackers. Nothing here is used while tracking."""

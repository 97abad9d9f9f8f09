"""Face landmarks of a video: their source, their meaning, and where they are kept."""

"""Training pairs from clips of people: crops, landmarks, point tracks and masks, prepared once and kept on disk."""

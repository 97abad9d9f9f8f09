"""The fit: stages as data, keyframes, windows of frames, calibration, texture."""

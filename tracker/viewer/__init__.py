"""A finished track in a browser, frame by frame: ``tools/view.py``. Needs viser."""

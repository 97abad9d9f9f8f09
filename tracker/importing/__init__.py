"""Other trackers' results, read from the files that they write."""

from tracker.importing.registry import IMPORTERS, Importer, import_track, read_any

__all__ = ["IMPORTERS", "Importer", "import_track", "read_any"]

"""Writers of a track: parameters as ``.npz``, an animated glTF file, mesh sequences, the texture.

:func:`export` is the one door: it takes a finished :class:`tracker.head_track.HeadTrack` and the head it was made with, and
writes the formats that it is told by name. Each format is a file in this folder and a line in
:mod:`tracker.export.registry`, and leaves either its whole output or nothing. Importing this package costs nothing; the
writers and their libraries are imported when they write.
"""

from tracker.export.registry import EXPORTERS, Exporter, check_formats, export, formats_of_run, parse_formats

__all__ = ["EXPORTERS", "Exporter", "check_formats", "export", "formats_of_run", "parse_formats"]

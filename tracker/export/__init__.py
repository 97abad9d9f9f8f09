"""Writers of a track: parameters as ``.npz``, an animated glTF file, mesh sequences.

Every writer takes a finished :class:`tracker.head_track.HeadTrack`, and leaves either its whole output or nothing.
"""

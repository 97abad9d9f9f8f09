"""Track the head in a video: ``python track.py --video in.mp4``. See ``python track.py --help``."""

import sys

from tracker.cli import main

if __name__ == "__main__":
    sys.exit(main())

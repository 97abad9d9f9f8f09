"""Track the head in a video: ``python track.py --video in.mp4``. See ``python track.py --help``."""

import sys

if __name__ == "__main__":
    try:
        from tracker.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before the program could catch it
        sys.exit(130)

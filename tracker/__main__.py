"""``python -m tracker``: the same as ``python track.py``."""

import sys

if __name__ == "__main__":
    try:
        from tracker.cli import main

        sys.exit(main())
    except KeyboardInterrupt:  # before the program could catch it
        sys.exit(130)

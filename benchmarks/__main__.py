"""``python -m benchmarks``: pins threads and core before any numerical library is imported, then runs the command line."""

import sys

from . import pinned

if __name__ == "__main__":
    core = pinned.pin()
    from .command import main

    sys.exit(main(core=core))

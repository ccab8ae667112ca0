"""`python -m qstore_core.cli`: the `qstore` command where no scripts are on the path."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())

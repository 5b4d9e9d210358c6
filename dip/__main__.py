"""`python -m dip` is the command `dip`."""

from __future__ import annotations

import sys

from dip.cli import main

if __name__ == "__main__":
    sys.exit(main())

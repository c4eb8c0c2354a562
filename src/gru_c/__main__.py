"""``python -m gru_c``: the same as the command ``gru-c``."""

import sys

from gru_c.cli import main

if __name__ == "__main__":
    sys.exit(main())

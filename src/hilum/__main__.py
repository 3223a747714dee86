"""``python -m hilum``."""

import sys

from hilum.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

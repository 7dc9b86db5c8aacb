"""``python -m operant.cli``, for a launcher such as accelerate."""

import sys

from operant.cli import main

if __name__ == "__main__":
    sys.exit(main())

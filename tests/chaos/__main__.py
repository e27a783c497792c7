"""`python -m tests.chaos`."""

import sys

from tests.chaos.harness import main

if __name__ == "__main__":  # the fork server imports this file, too
    sys.exit(main())

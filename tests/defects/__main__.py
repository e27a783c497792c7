"""`python -m tests.defects`."""

import sys

from tests.defects.seeding import main

if __name__ == "__main__":
    sys.exit(main())

"""Serve the embedded store over HTTP, so that notebooks, live runner and Grafana share it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import argparse
import logging

from sysquant.errors import SysquantError
from sysquant.serve import serve
from sysquant.store import DEFAULT_DSN

EPILOG = """\
Users are `default` (everything) and `dashboard` (reads); their passwords are in server.json of the
store's directory while it is served. Ctrl-C ends it.

examples:
  python runners/store.py
  python runners/store.py --port 8124
  python runners/store.py --dsn chdb:data/store-test
"""


def main() -> int:
    """Serve until SIGTERM or Ctrl-C; 1 with one sentence when that cannot be."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dsn", default=DEFAULT_DSN, help="embedded store (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="on 127.0.0.1 (default: last time's, or a free one)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        serve(options.dsn, port=options.port)
    except SysquantError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A command that ends with whoever started it, and with it all that it started.

Input: a scratch directory and a command; the other end of stdin. Output: the command's exit code.
When stdin ends, for the process that held it is gone however it ended, everything is killed and the
scratch directory deleted. Nothing outlives the command: what left its parent is found, too. Run as
`python -P guard.py scratch command ...`; imports nothing of the package, for it starts often.
"""

import ctypes
import os
import select
import shutil
import subprocess
import sys
from contextlib import suppress

import psutil

_SUBREAPER = 36  # of prctl: a process whose parent ended becomes ours
_LOOK_S = 0.05


def main() -> int:
    """Run the command to its end, or to that of who started it."""
    scratch, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    is_alone = False
    while process.poll() is None and not is_alone:
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        is_alone = bool(readable) and not os.read(0, 1)
    _end_all()
    if is_alone:
        shutil.rmtree(scratch, ignore_errors=True)
        return 1
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _end_all() -> None:
    # Until none is left: one may start another while it is killed.
    while left := psutil.Process().children(recursive=True):
        for one in left:
            with suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=1.0)


if __name__ == "__main__":
    sys.exit(main())

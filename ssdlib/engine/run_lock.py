"""The lock of a run: of two processes that would train into one folder, the second is refused."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssdlib.data.locks import lock

LOCK = "run.lock"


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep a folder, which is made if it is missing, for this process; a folder that is still empty at the end goes.

    The operating system holds the lock, and lets go of it when the process ends, however that happens: a lock file that
    a killed process left behind is in nobody's way, even if another process has its number by now. On a file system
    without locks, such as some network folders, this does nothing. Threads of one process do not keep each other out.

    Raises:
        BlockingIOError: if another process has the folder; the message names it.
    """
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]  # the innermost first
    out.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _acquired(out)
        try:
            yield
        finally:
            _release(out / LOCK, descriptor)
    finally:
        with suppress(OSError):  # it is not empty: the run began
            for folder in missing:
                folder.rmdir()


def _acquired(out: Path) -> int:
    """Descriptor of the lock file, which is locked and has our name in it."""
    path = out / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if lock(descriptor) is False:
                holder = os.read(descriptor, 1000).decode(errors="replace").strip() or "another process"
                raise BlockingIOError(f"a run is going on in {out} ({holder})")
            # Who had the lock may have removed the file after we opened it: then the lock is one of no name.
            if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    """Remove the lock file and let go of it, in the order that leaves no moment in which two processes can have it."""
    if sys.platform == "win32":
        os.close(descriptor)  # an open file cannot be removed there: neither ours nor that of the next in line
        with suppress(OSError):
            path.unlink()
    else:
        path.unlink(missing_ok=True)
        os.close(descriptor)

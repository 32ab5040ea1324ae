"""Locks of the operating system on files: it lets go of them when their process ends, however that happens."""

from __future__ import annotations

import errno
import os
import sys

_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}

if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int) -> bool | None:
        """Lock a byte far behind the end of a file, so that others can read it. For the result see the other one."""
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def lock(descriptor: int) -> bool | None:
        """Lock a file that is open for writing; threads of one process do not keep each other out.

        Not by `flock`: processes that load images would inherit that lock, and keep it for some time after the death of
        the one that trains.

        Returns:
            Whether it is ours now, and no other process's; None on a file system without locks, such as some network
            folders.
        """
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            return None
        return True

"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssdlib.data.locks import lock

_ABANDONED = 3600.0  # seconds since the last byte of a file that nobody will finish
_LOCK = ".lock"
_YOUNG = 5.0  # seconds in which a folder that was made may not be locked yet
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a full disk, a quota, a limit on the size of files


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Write to the path that this gives; at the end of the block the file takes the place of `path` in one step.

    After an error, `path` is as it was. The folder is made if it is missing. The temporary name, `.NAME.part.TOKEN`,
    is another one each time, so that of several writers the last one wins; it keeps the ending, by which libraries
    choose a format. What a process that was killed left of the same target is removed an hour later.

    Raises:
        OSError: if there is no space, whatever the writer in the block raised then; the message names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beginning = f".{path.stem[:40]}.part."
    _remove_abandoned(path.parent, beginning)
    aside = path.with_name(f"{beginning}{secrets.token_hex(4)}{path.suffix}")
    try:
        yield aside
        with open(aside, "r+b") as file:  # Windows synchronises only what is open for writing
            os.fsync(file.fileno())  # or a crash of the machine could leave the new name with the old, or no, content
        os.replace(aside, path)
    except BaseException as error:
        full = isinstance(error, (OSError, RuntimeError)) and _lacked_space(error, aside)
        with suppress(FileNotFoundError):
            aside.unlink()
        if full:
            raise OSError(f"no space to write {path}") from error
        raise


@contextmanager
def folder_aside(place: Path) -> Iterator[Path]:
    """A folder beside `place`, in which something is made that is moved there when it is complete; then it goes.

    What a process that was killed left of the same place is removed now: nobody holds its lock any more. On a file
    system without locks, nobody can know that, and it stays.
    """
    beginning = f".{place.name[:40]}.part."
    for left in place.parent.glob(f"{glob.escape(beginning)}*"):
        if left.is_dir() and not left.is_symlink() and left not in _in_use:
            with suppress(OSError):  # another process may remove it, too
                _remove_left(left)
    folder = Path(tempfile.mkdtemp(prefix=beginning, dir=place.parent))
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    _in_use.add(folder)
    try:
        lock(descriptor)
        yield folder
    finally:
        os.close(descriptor)  # Windows removes no open file
        shutil.rmtree(folder, ignore_errors=True)
        _in_use.discard(folder)


_in_use: set[Path] = set()  # folders aside of this process, whose own locks keep it out of nothing


def _remove_left(folder: Path) -> None:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        abandoned = time.time() - os.fstat(descriptor).st_mtime > _YOUNG and lock(descriptor) is True
    finally:
        os.close(descriptor)
    if abandoned:
        shutil.rmtree(folder)


def cache_folder() -> Path:
    """Where files are kept that can be made again: `SSDLIB_CACHE` of the environment, or else `~/.cache/ssdlib`."""
    return Path(os.environ.get("SSDLIB_CACHE") or Path.home() / ".cache" / "ssdlib").expanduser()


@contextmanager
def space_for(path: str | Path) -> Iterator[None]:
    """Say that there is no space to write `path` where a block fails because of that.

    Raises:
        OSError: in that case.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(f"no space to write {path}") from error
        raise


def _lacked_space(error: OSError | RuntimeError, half_written: Path) -> bool:
    """Whether that is why writing a file failed: libraries that write from C++ do not say, so that we try ourselves."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    try:
        with open(half_written, "ab") as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as tried:
        return tried.errno in _FULL
    return False


def _remove_abandoned(folder: Path, beginning: str) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(beginning):
                with suppress(OSError):  # another process may have removed or finished it
                    if time.time() - entry.stat().st_mtime > _ABANDONED:
                        os.unlink(entry)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, lines end as on Unix) that is there whole or not at all."""
    with replaced(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")

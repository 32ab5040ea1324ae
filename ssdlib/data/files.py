"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED = 3600.0  # seconds since the last byte of a file that nobody will finish
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

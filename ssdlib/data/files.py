"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


_ABANDONED = 3600.0  # seconds since the last byte of a file that nobody will finish


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Write to the path that this gives; at the end of the block the file takes the place of `path` in one step.

    After an error, `path` is as it was. The folder is made if it is missing. The temporary name, `.NAME.part.TOKEN`,
    is another one each time, so that of several writers the last one wins; it keeps the ending, by which libraries
    choose a format. What a process that was killed left of the same target is removed an hour later.
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
    except BaseException:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise


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

"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Write to the path that this gives; at the end of the block the file takes the place of `path` in one step.

    After an error, `path` is as it was. The folder is made if it is missing. The temporary name keeps the ending, by
    which libraries choose a format.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())  # or a crash of the machine could leave the new name with the old, or no, content
        os.replace(aside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file (UTF-8, lines end as on Unix) that is there whole or not at all."""
    with replaced(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")

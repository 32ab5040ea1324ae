"""What a command writes: refused before the work begins where it cannot be written, or would replace what it reads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import typer

from ssdlib.engine import run_folder
from ssdlib.engine.run_lock import LOCK

_OF_A_RUN = {run_folder.CONFIG, run_folder.LOG, run_folder.STATE, run_folder.MODEL, LOCK}
_OF_A_DATASET = ("Annotations", "ImageSets", "annotations")


def some_path(text: str) -> Path:
    """The path that a user names; an empty text, such as that of a variable that is not set, names none.

    Raises:
        typer.BadParameter: if it is empty.
    """
    if not text.strip():
        raise typer.BadParameter("an empty text is no path; the current folder is '.'")
    return Path(text)


def require_ending(output: Path, endings: Collection[str]) -> None:
    """Refuse the name of a picture that does not say its format.

    Args:
        output: file to write.
        endings: those that there are, with their dots.

    Raises:
        ValueError: if it has none of them.
    """
    if output.suffix.lower() not in endings:
        what = f"the ending {output.suffix} is not supported" if output.suffix else "the name has no ending"
        raise ValueError(f"{output} cannot be written: {what}; take one such as {output.with_suffix('.png')}")


def require_writable(output: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a file that cannot be written, or that would replace an input or a file of a run, also by another name.

    Args:
        output: file to write; it may exist.
        inputs: files that are read; those that are not there do not count.

    Raises:
        ValueError: if it would replace one of them, or a file of any run.
        OSError: if it is a folder, or its folder cannot be made or written to.
    """
    if output.is_dir():
        raise IsADirectoryError(f"{output} is a folder: name a file")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{output} cannot be written: {folder} is no folder")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{output} cannot be written: {folder} does not let you")
    real = Path(os.path.realpath(output))
    if real.name.lower() in _OF_A_RUN and (real.parent / run_folder.CONFIG).exists():
        raise ValueError(f"{output} would replace a file of the run in {real.parent}: choose another name")
    if output.exists():
        ours = os.stat(output)
        for path in inputs:
            if path.exists() and os.path.samestat(os.stat(path), ours):
                raise ValueError(f"{output} would replace {path}, which is read: choose another name")


def require_outside(output: Path, datasets: Iterable[Path]) -> None:
    """Refuse a file among the annotations and image sets of data sets.

    Raises:
        ValueError: if it is there.
    """
    real = Path(os.path.realpath(output))
    for root in datasets:
        for name in _OF_A_DATASET:
            if Path(os.path.realpath(root / name)) in real.parents:
                raise ValueError(f"{output} lies in {root / name}, which is read: choose another folder")

"""What a command writes: refused before the work begins where it cannot be written, or would replace what it reads."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from ssdlib.data.files import folder_aside, replaced, space_for
from ssdlib.data.names import distinct
from ssdlib.engine import run_folder
from ssdlib.engine.run_lock import LOCK

_OF_A_RUN = {run_folder.CONFIG, run_folder.LOG, run_folder.STATE, run_folder.MODEL, run_folder.BEST, LOCK}
_OF_A_DATASET = ("Annotations", "ImageSets", "JPEGImages", "annotations", "images")


def some_path(text: str) -> Path:
    """The path that a user names; an empty text, such as that of a variable that is not set, names none.

    Raises:
        typer.BadParameter: if it is empty.
    """
    if not text.strip():
        raise typer.BadParameter("an empty text is no path; the current folder is '.'")
    return Path(text)


def require_ending(output: Path, endings: Collection[str]) -> None:
    """Refuse the name of a file that does not say its format: it may be a slip, and the file of another kind there.

    Args:
        output: file to write.
        endings: those that there are, with their dots.

    Raises:
        ValueError: if it has none of them.
    """
    if output.suffix.lower() not in endings:
        what = f"the ending {output.suffix} is not supported" if output.suffix else "the name has no ending"
        example = output.with_suffix(".png" if ".png" in endings else min(endings))
        raise ValueError(f"{output} cannot be written: {what}; take one such as {example}")


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
    """Refuse a file among the annotations, image sets and images of data sets, also of sets that are not read now.

    Raises:
        ValueError: if it is there.
    """
    real = Path(os.path.realpath(output))
    for root in datasets:
        for name in _OF_A_DATASET:
            if Path(os.path.realpath(root / name)) in real.parents:
                raise ValueError(f"{output} lies in {root / name}, which is read: choose another folder")


def require_replaceable(folder: Path, mark: str, beginning: str, names: Collection[str]) -> None:
    """Refuse a folder that is there and not one that an earlier call made.

    Args:
        folder: to make, or to replace if it is empty or ours.
        mark: a file of our folders.
        beginning: how its text begins.
        names: all files that they may hold.

    Raises:
        FileExistsError: if it holds anything else; the message names that.
        OSError: if it is a file, or cannot be made.
    """
    require_writable(folder / mark)
    if not folder.is_dir():
        return
    here = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in here if name not in names or not (folder / name).is_file()]
    if not foreign and here:
        try:
            with open(folder / mark, encoding="utf-8") as file:
                if file.read(len(beginning)) == beginning:
                    return
        except (OSError, ValueError):
            pass
        foreign = here
    if foreign:
        raise FileExistsError(f"{folder} holds {foreign[0]!r}, which we did not make: choose another folder")


@contextmanager
def replaced_folder(folder: Path, mark: str, beginning: str, names: Collection[str]) -> Iterator[Path]:
    """Fill the folder that this gives; at the end of the block it takes the place of `folder`, whole.

    After an error, `folder` is as it was. The arguments are those of `require_replaceable`, which is asked again at the
    end, as the folder may have been filled meanwhile. What an earlier call left that was killed goes, as
    `ssdlib.data.files.folder_aside` says; so would the old folder, if that was while both changed places.

    Raises:
        FileExistsError: as `require_replaceable`.
        OSError: if there is no space; the message names `folder`.
    """
    real = Path(os.path.realpath(folder))
    real.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(real) as aside:
        fresh, old = aside / "new", aside / "old"
        fresh.mkdir()
        with space_for(folder):
            yield fresh
        require_replaceable(real, mark, beginning, names)
        if real.exists():
            os.replace(real, old)
        try:
            os.replace(fresh, real)
        except OSError:
            if old.exists():
                os.replace(old, real)
            raise


def picture_names(images: Sequence[Path]) -> list[str]:
    """A name for the picture of each image: that of the image, with its folder or a number where several have the same.

    >>> picture_names([Path("a/1.jpg"), Path("b/1.jpg"), Path("b/2.jpg")])
    ['a_1.png', 'b_1.png', '2.png']
    """
    stems = Counter(path.stem for path in images)
    taken: set[str] = set()
    names = []
    for path in images:
        name = path.stem if stems[path.stem] == 1 else f"{path.absolute().parent.name}_{path.stem}"
        names.append(f"{distinct(name, taken)}.png")
    return names


Rows = Sequence[dict[str, Any]]


@contextmanager
def rows_to(lines: Path | None, table: Path | None, columns: Sequence[str]) -> Iterator[Callable[[Rows], None]]:
    """A function that writes rows as they come: as lines of JSON and as CSV, each file whole at the end or not at all.

    Args:
        lines: file for lines of JSON; None for the screen, unless there is a table.
        table: file for CSV; or None.
        columns: the keys of each row, of which a "box" becomes four columns of the table.
    """
    with ExitStack() as stack:
        opened = {}
        for path in (lines, table):
            if path is not None:
                aside = stack.enter_context(replaced(path))
                stack.enter_context(space_for(path))
                opened[path] = stack.enter_context(open(aside, "w", encoding="utf-8", newline=""))
        writer = None if table is None else csv.writer(opened[table], lineterminator="\n")
        if writer is not None:
            writer.writerow(name for column in columns for name in (_CORNERS if column == "box" else [column]))

        def write(rows: Rows) -> None:
            for row in rows:
                if lines is not None:
                    opened[lines].write(f"{json.dumps(row)}\n")
                if writer is not None:
                    cells = ([*row[name]] if name == "box" else [row[name]] for name in columns)
                    writer.writerow(cell for several in cells for cell in several)
                if lines is None and writer is None:
                    typer.echo(json.dumps(row))

        yield write


_CORNERS = ("x_min", "y_min", "x_max", "y_max")

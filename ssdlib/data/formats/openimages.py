"""Open Images: a CSV table with a row for each box, in fractions of the image."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssdlib.data.formats.collecting import (
    Collector,
    ImageFiles,
    LabelledObject,
    Source,
    files_below,
    fractions,
    refusal,
)
from ssdlib.data.names import said, shown

CORNERS = ("XMin", "YMin", "XMax", "YMax")
_COLUMNS = {"ImageID", "LabelName", *CORNERS}


def read_openimages(files: Sequence[Path], root: Path, images: ImageFiles) -> Source:
    """Read tables of boxes; the set is the beginning of a name such as train-annotations-bbox.csv.

    `LabelName` holds codes such as /m/01yrx; their words come from a table class-descriptions*.csv, where there is one.
    `IsGroupOf` marks a box around many objects, as COCO's `iscrowd`. An image without a row has no objects.

    Raises:
        ValueError: a table cannot be read; the message names it.
    """
    words = _words(root)
    found = Collector("openimages", root)
    codes: set[str] = set()
    seen: set[Path] = set()
    for path in files:
        rows: dict[str, list[dict[str, str]]] = defaultdict(list)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                table.fieldnames = [name.strip() for name in table.fieldnames or ()]
                if lacking := sorted(_COLUMNS - set(table.fieldnames)):
                    raise csv.Error(f"its first line has no {lacking[0]!r}")
                for row in table:
                    rows[row["ImageID"]].append(row)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no table of boxes of Open Images: {said(error)}") from error
        image_set = path.stem.partition("-annotations")[0] if "-annotations" in path.stem else None
        for name, mine in rows.items():
            try:
                image = images.find(name or "", path.parent)
            except LookupError as error:
                found.lose(path, "no image", str(error), len(mine))
                continue
            seen.add(image)
            codes.update(row.get("LabelName") or "" for row in mine)
            found.add(path, image, None, [_object(row, words) for row in mine], image_set)
    empty = [image for image in images.paths if image not in seen]
    for image in empty:
        found.add(image, image, None, [])
    if empty:
        found.notes.append(f"{len(empty)} images have no row: they are taken as images without objects")
    nameless = sorted(code for code in codes if code.startswith("/") and code not in words)
    if nameless:
        found.notes.append(
            f"no class-descriptions*.csv names {', '.join(map(shown, nameless[:5]))}: the codes are kept"
        )
    return found.finish()


def is_openimages(path: Path) -> bool:
    """Whether the first line of a table is that of the boxes of Open Images."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {cell.strip() for cell in file.readline(10_000).split(",")} >= _COLUMNS


def _words(root: Path) -> dict[str, str]:
    words = {}
    for path in files_below(root, "*class-descriptions*.csv"):
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                words.update({row[0]: row[1] for row in csv.reader(file) if len(row) >= 2 and row[0] != "LabelName"})
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no table of classes: {said(error)}") from error
    return words


def _object(row: dict[str, str], words: dict[str, str]) -> LabelledObject:
    code = row.get("LabelName") or ""
    name, group = words.get(code, code), row.get("IsGroupOf") == "1"
    try:
        corners = [float(row[key]) for key in CORNERS]
    except (TypeError, ValueError):
        return LabelledObject(name, refusal("not a number", shown([row.get(key) for key in CORNERS])))
    return LabelledObject(name, fractions(corners), group)

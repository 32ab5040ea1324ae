"""What chapters need besides the library: numbers of the code in the prose, and results that were recorded before.

A reader in Colab has `ssdlib` but not the tools that build the book, so this does not import them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from IPython.display import display

RECORDS = Path(__file__).parent / "engine" / "records"
"""The results of long runs, one JSON file for each; benchmarks/ writes them."""

_PREFIX = "application/papermill.record/"


def glue(name: str, value: object) -> None:
    """Keep a value under a name, for `{glue:text}` in the prose of the same chapter; nothing is shown here.

    Args:
        name: unique in the book; by custom chapter, then thing, as in "boxes_iou_shifted".
        value: written as `str` gives it: format numbers as they should read, as in "8,732" or "1.00".

    Source: the message format of MyST-NB's `glue`, which the book's builder collects.
    """
    # The builder reads the text as a Python literal: without the quotes "8,732" would become a pair of numbers.
    data = {f"{_PREFIX}text/plain": repr(str(value))}
    display(data, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": _PREFIX}})


def recorded(name: str) -> dict[str, Any]:
    """A result that was recorded before the book was built, with its command, date, commit and hardware.

    Args:
        name: of the file in `RECORDS`, without ".json".

    Raises:
        FileNotFoundError: if there is none of that name; the message lists those that there are.
    """
    path = RECORDS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in RECORDS.glob("*.json")))
        raise FileNotFoundError(f"there is no record {name!r} in {RECORDS}; there are {known}")
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record

"""Work on many images in threads, as decoders and disks let others run meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], title: str, progress: bool = True
) -> Iterator[_Result]:
    """The results of `work` for each image, in the order of the items, with a bar on stderr if `progress`.

    Whatever ends it early, such as an error of `work` or Ctrl-C, leaves out what was not begun.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Its iterator cancels what was not begun when it ends early.
        yield from tqdm(pool.map(work, items), title, len(items), unit="image", disable=not progress)

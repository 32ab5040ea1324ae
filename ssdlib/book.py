"""What chapters need besides the library: numbers of the code in the prose.

A reader in Colab has `ssdlib` but not the tools that build the book, so this does not import them.
"""

from __future__ import annotations

from IPython.display import display

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

"""Flipbook: a figure in steps, each a picture with a sentence on it, to be turned like pages."""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import traitlets
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssdlib.widgets.base import BookWidget, image_url, open_url, png_url

Picture = Figure | Image.Image | Tensor | str | os.PathLike[str]
PRINTED, COLUMNS, WIDE = 4, 2, 3.5  # on the sheet for print: most pictures, how many in a row, inches each
LETTERS = 54  # in a line over a picture on that sheet
COLORS = 32  # of a drawing


class Flipbook(BookWidget):
    """A figure that moves: pictures of one size, a sentence for each, and a slider, buttons and keys to turn them.

    Draw on a `matplotlib.figure.Figure(figsize, dpi=160, layout="none")`, which no notebook shows by itself, about 4
    inches wide, with axes at fixed places, so that nothing moves but what is meant. Pages show it 280 to 440 px wide.

    Args:
        steps: at least two, each (picture, words). The picture is a figure of matplotlib, a tensor (3, H, W), an image
            of Pillow, or the path of a JPEG or PNG file. The words say what is seen there: they are shown and read out
            with the picture, and are its alternative text.
        traits: any of the attributes.

    Attributes:
        step: which of them is shown, from 0 on.
        steps: what is shown, each {"picture", "words"}, the picture as an address that holds it; it cannot be set.

    Raises:
        ValueError: if there are fewer than two steps, one is no pair, has no words, or has a picture of another size;
            the message names the step.
        TypeError: if a picture is nothing of the above.

    Example:
        >>> import torch
        >>> shades = [(torch.full((3, 20, 30), k / 4), f"{k} quarters of white") for k in range(5)]
        >>> book = Flipbook(shades, title="From black to white", step=2)
        >>> book.words
        '2 quarters of white'
    """

    _module = "flipbook"

    title = traitlets.Unicode("Step by step").tag(sync=True)
    steps = traitlets.List(traitlets.Dict(), read_only=True).tag(sync=True)
    size = traitlets.Tuple(traitlets.Int(), traitlets.Int(), read_only=True).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)

    def __init__(self, steps: Sequence[tuple[Picture, str]], **traits: Any) -> None:
        pages, size = _pages(steps)
        self.set_trait("steps", pages)
        self.set_trait("size", size)
        super().__init__(**traits)

    @traitlets.validate("step")
    def _check_step(self, proposal: Any) -> int:
        last = len(self.steps) - 1
        if not 0 <= proposal.value <= last:
            raise traitlets.TraitError(f"step must be 0 to {last}; got {proposal.value}")
        return int(proposal.value)

    @property
    def words(self) -> str:
        """What is said of the step that is shown."""
        return str(self.steps[self.step]["words"])

    def describe(self) -> str:
        """All steps, in words."""
        said = " ".join(f"{number}. {page['words']}" for number, page in enumerate(self.steps, start=1))
        return f"{self.title}, in {len(self.steps)} pictures. {said}"

    def picture(self) -> Figure:
        """A sheet for print: the first step, the last, and some between, with what is said of each."""
        count = min(PRINTED, len(self.steps))
        chosen = [round(k * (len(self.steps) - 1) / (count - 1)) for k in range(count)]
        lines = [textwrap.wrap(f"{k + 1}. {self.steps[k]['words']}", LETTERS) for k in chosen]
        rows = math.ceil(count / COLUMNS)
        width, height = self.size
        tall = WIDE * height / width + 0.17 * max(map(len, lines)) + 0.1
        figure = Figure(figsize=(COLUMNS * WIDE, rows * tall), layout="constrained")
        for place, (k, said) in enumerate(zip(chosen, lines, strict=True), start=1):
            ax = figure.add_subplot(rows, COLUMNS, place)
            ax.imshow(open_url(self.steps[k]["picture"]).convert("RGB"))
            ax.set_title("\n".join(said), fontsize=8, loc="left", parse_math=False)
            ax.set_axis_off()
        return figure


def _pages(steps: Sequence[tuple[Picture, str]]) -> tuple[list[dict[str, str]], tuple[int, int]]:
    """Pictures and words as the page wants them, and the (width, height) in pixels that all pictures have."""
    pages: list[dict[str, str]] = []
    size: tuple[int, int] | None = None
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, (tuple, list)) or len(step) != 2:
            raise ValueError(f"step {number} must be (picture, words); got {str(step)[:80]}")
        picture, words = step
        if not isinstance(words, str) or not words.strip():
            raise ValueError(f"step {number} needs words that say what is seen; got {words!r}")
        address = _address(picture, number)
        found = open_url(address).size
        size = size or found
        if found != size:
            wanted, got = (f"{width} x {height}" for width, height in (size, found))
            raise ValueError(f"the pictures must have one size, {wanted} as the first; step {number} has {got}")
        pages.append({"picture": address, "words": words})
    if size is None or len(pages) < 2:
        raise ValueError(f"a flipbook needs at least two steps; got {len(pages)}")
    return pages, size


def _address(picture: Any, number: int) -> str:
    if isinstance(picture, Figure):
        drawn = io.BytesIO()
        # To save a figure without a layout gives it the default one, which would move the axes the next time.
        with rc_context({"figure.constrained_layout.use": False, "figure.autolayout": False}):
            picture.savefig(drawn, format="png", dpi=picture.dpi, facecolor="white")
            flat = png_url(picture, dots_per_inch=int(picture.dpi), colors=COLORS)
        return min(flat, image_url(Image.open(drawn)), key=len)  # drawings are smaller as PNG, photographs as JPEG
    if not isinstance(picture, (str, os.PathLike, Tensor, Image.Image)):
        raise TypeError(f"the picture of step {number} must be a figure, image, tensor or path; got {type(picture)}")
    return image_url(picture)

"""What chapters need besides the library: numbers of the code in the prose, and results that were recorded before.

A reader in Colab has `ssdlib` but not the tools that build the book, so this does not import them.
"""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

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


# ---- the form of figures ----------------------------------------------------------------------------------------

LARGEST_DRAWING = 70_000
"""Characters of a drawing without its pictures; a figure of more lines than that is smaller as dots."""

_PICTURE = re.compile(r'(<image )xlink:href="data:image/png;base64,([^"]+)"([^>]*>)')
_PLACED = re.compile(r'<image (xlink:href="[^"]+") id="([^"]+)" ([^>]*)transform="matrix\(([^)]*)\)"[^>]*/>')
_DATA = re.compile(r"data:image/\w+;base64,[^\"]+")
_LINE = re.compile(r'<path d="([^"]+)"')
_STYLE = r'(?:clip-path="[^"]+" )?style="fill: none; (?:(?!opacity)[^"])*"'
_RUN = re.compile(rf'<g id="[^"]+"><path d="[^"]+" ({_STYLE})/></g>(?:<g id="[^"]+"><path d="[^"]+" \1/></g>)+')
_PHOTOGRAPH = 90  # pixels a side; what has fewer is a map of numbers, whose cells should stay squares with sharp edges


def show_figures_sharp() -> None:
    """Show the figures of a notebook as drawings (SVG), and as dots for sharp screens where a drawing would be large.

    A drawing is sharp at every size, and the book's pages can give its lines and letters the colours of the theme.
    Outside of a notebook this does nothing.
    """
    shell = get_ipython()
    if shell is None or shell.display_formatter is None or not hasattr(shell, "kernel"):
        return
    import matplotlib_inline.backend_inline  # noqa: F401  (sets its own form of figures when it is first imported)

    formatters = shell.display_formatter.formatters
    formatters["image/svg+xml"].for_type(Figure, as_drawing)
    formatters["image/png"].for_type(Figure, as_dots)


def as_drawing(figure: Figure) -> str | None:
    """A figure as SVG, the same text each time; None if that is longer than `LARGEST_DRAWING`.

    Letters stay letters. Photographs are held in their own resolution, as JPEG where that is smaller. In a drawing that
    would be too long, lines of one style that follow each other are one path.
    """
    if not figure.axes and not figure.lines:
        return None
    images = [image for axes in figure.axes for image in axes.get_images()]
    before = [image.get_interpolation() for image in images]
    buffer = io.StringIO()
    try:
        for image in images:
            image.set_interpolation("none")  # else it would be drawn anew, with the dots of a coarse screen
        with matplotlib.rc_context({"svg.hashsalt": "ssd", "svg.fonttype": "none", "image.composite_image": False}):
            figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    finally:
        for image, interpolation in zip(images, before, strict=True):
            image.set_interpolation(interpolation)
    drawing = _compact(buffer.getvalue())
    if _is_long(drawing):
        drawing = _together(drawing)
    return None if _is_long(drawing) else drawing


def _is_long(drawing: str) -> bool:
    return len(_DATA.sub("", drawing)) > LARGEST_DRAWING


def _together(drawing: str) -> str:
    """Neighbours that are lines of one style as one path.

    That looks the same where nothing is filled, and nothing shines through where two of them cross.
    """
    return _RUN.sub(lambda run: f'<g><path d="{"".join(_LINE.findall(run[0]))}" {run[1]}/></g>', drawing)


def as_dots(figure: Figure) -> tuple[bytes, dict[str, int]] | None:
    """A figure as PNG with two dots for a pixel of the page, and its size on the page; None if it is a drawing."""
    if (not figure.axes and not figure.lines) or as_drawing(figure) is not None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=2 * figure.dpi, bbox_inches="tight")
    data = buffer.getvalue()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return data, {"width": width // 2, "height": height // 2}


def _compact(drawing: str) -> str:
    """One line without prologue, comments and metadata, a hundredth of a point exact; as large as its dots were."""
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r' d="[^"]+"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), drawing)
    drawing = re.sub(r"'DejaVu Sans', '[^;\"]*", "DejaVu Sans, Verdana, sans-serif", drawing)
    for side in ("width", "height"):  # points as pixels, 110 of them for an inch
        drawing = re.sub(
            rf'( {side}=)"([\d.]+)pt"', lambda found: f'{found[1]}"{float(found[2]) * 110 / 72:.0f}"', drawing
        )
    drawing = re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", drawing))
    return _once(_PICTURE.sub(lambda found: _small_picture(*found.groups()), drawing)).strip()


def _once(drawing: str) -> str:
    """Each picture once; where it is again, a reference to the first, moved and stretched to its place."""
    seen: dict[str, tuple[str, list[float]]] = {}

    def refer(found: re.Match[str]) -> str:
        content, name, matrix = found[1], found[2], [float(number) for number in found[4].split()]
        if content not in seen:
            seen[content] = (name, matrix)
            return found[0]
        first, (a, _, _, d, x, y) = seen[content]
        across, down = matrix[0] / a, matrix[3] / d
        place = [across, 0, 0, down, matrix[4] - x * across, matrix[5] - y * down]
        return f'<use xlink:href="#{first}" transform="matrix({" ".join(f"{number:.6g}" for number in place)})"/>'

    return _PLACED.sub(refer, drawing)


def _small_picture(tag: str, encoded: str, rest: str) -> str:
    """An embedded PNG; if it is a photograph as JPEG, and smooth at other sizes."""
    data = base64.b64decode(encoded)
    with Image.open(io.BytesIO(data)) as image:
        opaque = image.mode == "RGB" or image.convert("RGBA").getchannel("A").getextrema()[0] == 255
        if min(image.size) < _PHOTOGRAPH or not opaque:
            return f'{tag}xlink:href="data:image/png;base64,{encoded}"{rest}'
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=80, optimize=True)
    kind, data = min([("png", data), ("jpeg", buffer.getvalue())], key=lambda each: len(each[1]))
    rest = re.sub(r' style="image-rendering[^"]*"', "", rest)
    return f'{tag}xlink:href="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}"{rest}'

"""A sheet of images with their objects drawn, as a page for a browser or the output of a notebook's cell."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from ssdlib.data.annotated import AnnotatedDataset
from ssdlib.data.annotations import summarize
from ssdlib.data.columns import AnnotatedImage
from ssdlib.data.images import load_thumbnail
from ssdlib.data.names import counted, printable

# Okabe and Ito's colours, which differ for colour-blind readers too, without black.
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_QUALITY = 80

Order = Callable[[AnnotatedImage, npt.NDArray[np.float64]], float]
ORDERS: dict[str, Order | None] = {
    "file": None,
    "smallest": lambda image, sizes: float(sizes.min(initial=math.inf)),
    "largest": lambda image, sizes: -float(sizes.max(initial=0)),
    "most": lambda image, sizes: -len(sizes),
    "thinnest": lambda image, sizes: _thinnest(image),
}
"""What comes first, by name: of the objects that are asked for, the smallest, the largest, the most of them; or, of all
objects, the one whose sides differ most."""


@dataclass(frozen=True)
class Sheet:
    """Images with their objects, as HTML that needs no other file.

    Attributes:
        title: what is shown.
        figures: HTML of each image.
        note: how many of how many images are shown.
        classes: names of the classes that are drawn.
    """

    title: str
    figures: tuple[str, ...]
    note: str
    classes: tuple[str, ...]

    def _repr_html_(self) -> str:
        return f'<div class="ssd-sheet"><style>{_STYLE}</style><p>{escape(self.note)}</p>{self._grid()}</div>'

    def page(self) -> str:
        """The sheet as a page of its own, in which the objects of one class can be chosen."""
        names = "".join(f"<option>{escape(name)}</option>" for name in self.classes)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_PAGE}{_STYLE}</style></head>"
            f'<body class="ssd-sheet"><h1>{escape(self.title)}</h1><p>{escape(self.note)}</p>'
            f'<p><label>Class <select><option value="">all</option>{names}</select></label> <output></output></p>'
            f"{self._grid()}<script>{_SCRIPT}</script></body></html>\n"
        )

    def _grid(self) -> str:
        return f'<div class="grid">{"".join(self.figures)}</div>'


def make_sheet(
    dataset: AnnotatedDataset,
    *,
    classes: Sequence[str] = (),
    larger: float = 0.0,
    smaller: float = math.inf,
    order: str = "file",
    limit: int = 24,
    side: int = 300,
    title: str = "Images and their objects",
) -> Sheet:
    """Draw images with their objects; the last line of a notebook's cell shows it.

    The size of an object is the square root of its share of the image's area. Objects that are not asked for are drawn
    in a thin broken line.

    Args:
        dataset: images and objects.
        classes: ask for objects of these; by default of all.
        larger, smaller: ask for objects of at least, and below, these sizes. Images without an object that is asked for
            are left out; if nothing is asked for, all are shown, also those without objects.
        order: a name of `ORDERS`.
        limit: the most images.
        side: the longer side of a picture, in pixels.
        title: of the page.

    Raises:
        ValueError: a class or an order is unknown; or an image cannot be decoded. The message names it.
    """
    unknown = [name for name in classes if name not in dataset.classes]
    if unknown:
        raise ValueError(f"no class {unknown[0]!r}; there are {', '.join(dataset.classes)}")
    if order not in ORDERS:
        raise ValueError(f"no order {order!r}; there are {', '.join(ORDERS)}")
    labels = [dataset.classes.index(name) + 1 for name in classes] or list(range(1, len(dataset.classes) + 1))
    everything = not classes and larger <= 0 and smaller == math.inf
    chosen = []
    for image in dataset._images:
        sizes = _sizes(image)
        asked = np.isin(image.labels, labels) & (sizes >= larger) & (sizes < smaller)
        if asked.any() or everything:
            chosen.append((image, asked, sizes[asked]))
    key = ORDERS[order]
    if key is not None:
        chosen.sort(key=lambda item: key(item[0], item[2]))
    shown = chosen[:limit]
    drawn = {int(label) for image, _, _ in shown for label in image.labels}
    objects = sum(len(sizes) for _, _, sizes in chosen)
    return Sheet(
        title=title,
        figures=tuple(_figure(image, asked, dataset.classes, side) for image, asked, _ in shown),
        note=f"{len(shown)} of {counted(len(chosen), 'image')} with {counted(objects, 'object')}, of "
        f"{counted(len(dataset), 'image')} in the set",
        classes=tuple(name for label, name in enumerate(dataset.classes, start=1) if label in drawn),
    )


def _sizes(image: AnnotatedImage) -> npt.NDArray[np.float64]:
    """(M,) the square root of each object's share of the image's area."""
    sides = (image.boxes[:, 2:] - image.boxes[:, :2]).astype(np.float64)
    return np.sqrt(sides.prod(axis=1) / (image.size[0] * image.size[1]))


def _thinnest(image: AnnotatedImage) -> float:
    sides = (image.boxes[:, 2:] - image.boxes[:, :2]).astype(np.float64)
    return float((sides.min(axis=1) / sides.max(axis=1)).min(initial=math.inf)) if len(sides) else math.inf


def _figure(image: AnnotatedImage, asked: npt.NDArray[np.bool_], classes: Sequence[str], side: int) -> str:
    width, height = image.size
    buffer = io.BytesIO()
    load_thumbnail(image.image_path, side, image.upright).save(buffer, "JPEG", quality=_QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    letters = max(width, height) / 20
    # The objects that are asked for lie above the others, and small ones above large ones.
    sizes = _sizes(image)
    boxes = []
    for index in sorted(range(len(sizes)), key=lambda i: (bool(asked[i]), -sizes[i])):
        label = int(image.labels[index])
        x, y, right, bottom = (round(float(edge), 2) for edge in image.boxes[index])
        name = escape(printable(classes[label - 1]))
        place = f'x="{x:g}" y="{y:g}" width="{right - x:.6g}" height="{bottom - y:.6g}"'
        words = f"{name}, size {sizes[index]:.3f}" + (", difficult" if image.difficult[index] else "")
        text_y = y - letters / 4 if y > letters else min(bottom + letters, height - letters / 4)
        text_x = f'x="{x:g}"' if x < 0.7 * width else f'x="{right:g}" text-anchor="end"'
        boxes.append(
            f'<g class="{"asked" if asked[index] else "other"}" data-name="{name}"><title>{words}</title>'
            f'<rect class="under" {place}/><rect {place} stroke="{_COLOURS[(label - 1) % len(_COLOURS)]}"/>'
            f'<text {text_x} y="{text_y:.6g}" font-size="{letters:.4g}">{name}</text></g>'
        )
    counts = Counter(classes[label - 1] for label in image.labels)
    objects = ", ".join(f"{count} {printable(name)}" for name, count in sorted(counts.items())) or "no object"
    name = escape(printable(image.image_path.name))
    findings = f'<br><span class="found">{escape(summarize(image.findings))}</span>' if image.findings else ""
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{name}: {escape(objects)}">'
        f'<image href="data:image/jpeg;base64,{data}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
        f"{''.join(boxes)}</svg><figcaption><b>{name}</b>, {width} × {height}: {escape(objects)}{findings}"
        f"</figcaption></figure>"
    )


_PAGE = """
:root{color-scheme:light dark}
body{font:1rem/1.4 system-ui,sans-serif;margin:1rem;background:Canvas;color:CanvasText}
h1{font-size:1.3rem;overflow-wrap:anywhere}
select{font:inherit;max-width:100%;padding:.3em}
"""
_STYLE = """
.ssd-sheet .grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr))}
.ssd-sheet figure{margin:0;min-width:0}
.ssd-sheet figure[hidden]{display:none}
.ssd-sheet svg{display:block;width:100%;height:auto;background:#8884}
.ssd-sheet rect{fill:none;stroke-width:2px;vector-effect:non-scaling-stroke}
.ssd-sheet .under{stroke:#000;stroke-width:4px;stroke-opacity:.55}
.ssd-sheet text{fill:#fff;stroke:#000;stroke-width:.2em;paint-order:stroke;font-family:system-ui,sans-serif}
.ssd-sheet .other rect{stroke-dasharray:4 4;stroke-width:1px}
.ssd-sheet .other text,.ssd-sheet .away{display:none}
.ssd-sheet figcaption{font-size:.85rem;overflow-wrap:anywhere}
.ssd-sheet .found{font-style:italic}
"""
_SCRIPT = """
const select=document.querySelector("select"),output=document.querySelector("output");
select.addEventListener("change",()=>{
let shown=0,objects=0;
for(const figure of document.querySelectorAll("figure")){
let here=0;
for(const group of figure.querySelectorAll("g")){
const fits=!select.value||group.dataset.name===select.value;
group.classList.toggle("away",!fits);
here+=fits;
}
figure.hidden=Boolean(select.value)&&!here;
shown+=!figure.hidden;
objects+=here;
}
output.textContent=select.value?`${objects} object${objects===1?"":"s"} in ${shown} of these images`:"";
});
"""

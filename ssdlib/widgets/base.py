"""What all widgets share: their state, their checks, and the HTML by which they live on a page without a kernel."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Iterable
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ssdlib.plotting import PALETTE, to_pil

STATIC = Path(__file__).parent / "static"
SHARED = ("maths", "controls", "links", "stage")
"""The scripts that every module may use; they are put in front of it, as a module of a notebook cannot import files."""


@cache
def read_static(name: str) -> str:
    """Text of a file in the folder `static`."""
    return (STATIC / name).read_text(encoding="utf-8")


@cache
def read_module(name: str) -> str:
    """A widget's module with its parts in front: the files NAME.PART.mjs, by name."""
    parts = sorted(path.name for path in STATIC.glob(f"{name}.*.mjs"))
    return "\n".join(map(read_static, [*parts, f"{name}.mjs"]))


@cache
def style_sheet() -> str:
    """The style of all widgets, with the palette of the figures: what they share, then what one of them adds."""
    colors = "".join(f"  --ssd-{number}: {color};\n" for number, color in enumerate(PALETTE, start=1))
    files = ["widgets.css", *sorted(path.name for path in STATIC.glob("*.css") if path.name != "widgets.css")]
    return "\n".join([f".ssd-widget-place,\n.ssd-widget {{\n{colors}}}\n", *map(read_static, files)])


class BookWidget(anywidget.AnyWidget):
    """A widget of the book: live in a notebook, and on the built page without one.

    In JupyterLab, Colab and VS Code its traits are shared with Python both ways. In the output of a cell it also
    leaves HTML, which holds its state, and a picture for readers without scripts and for print; the book's pages put
    the same module on top of that (`widget_pages`).

    A subclass names its module, `static/<_module>.mjs` (the parts of a long one are `<_module>.<part>.mjs`), has traits
    tagged `sync=True`, and draws `picture()`.

    Attributes:
        title: the heading, and the name that screen readers say.
    """

    _module: ClassVar[str]
    _from_network: ClassVar[bool] = False  # the state holds outputs of a network, which differ in their last digits

    title = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        # Boxes are checked against the size of the picture, in whatever order the two are given.
        super().__init__(**dict(sorted(traits.items(), key=lambda item: item[0] not in ("size", "image"))))

    def set_trait(self, name: str, value: Any) -> None:
        """Set a trait, as the page does; a number that is not finite is refused, wherever in the value it stands."""
        self._refuse_odd(name, value)
        super().set_trait(name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_odd(name, value)
        super().__setattr__(name, value)

    def _refuse_odd(self, name: str, value: Any) -> None:
        # The messages of a notebook carry NaN, which passes every comparison with a smallest and a largest value.
        trait = getattr(type(self), name, None)
        if isinstance(trait, traitlets.TraitType) and trait.metadata.get("sync") and not all_finite(value):
            raise traitlets.TraitError(f"{name} must be made of finite numbers; got {str(value)[:80]}")

    def __init_subclass__(cls, **options: Any) -> None:
        if "_module" in cls.__dict__:  # not so in the classes that traitlets makes for an object with traits of its own
            shared = "\n".join(read_static(f"{name}.mjs") for name in SHARED)
            cls._esm = f"{shared}\n{read_module(cls._module)}"
            cls._css = style_sheet()
        super().__init_subclass__(**options)

    def picture(self) -> Figure:
        """The widget in its present state, drawn by matplotlib."""
        raise TypeError(f"{type(self).__name__} draws no picture")

    def describe(self) -> str:
        """What is seen on the picture, in a sentence or two: its alternative text."""
        return self.title

    def state(self) -> dict[str, Any]:
        """The traits that a page needs, by name, as plain numbers, texts, lists and dictionaries."""
        own = sorted(set(self.trait_names(sync=True)) - set(anywidget.AnyWidget.class_trait_names(sync=True)))
        return {name: plain(getattr(self, name)) for name in own if not name.startswith("_")}

    def to_html(self) -> str:
        """The widget for a page: a picture, and the state that the script of the page brings to life."""
        figure = self.picture()
        state = json.dumps(self.state(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        state = state.replace("<", "\\u003c")  # no text of a data set can end the script, or begin a comment in it
        source = " data-from=network" if self._from_network else ""
        return (
            f'<div class="ssd-widget-place" data-module="{self._module}">\n'
            f'<img alt="{escape(self.describe())}" src="{png_url(figure)}">\n'
            f'<script type="application/json"{source}>{state}</script>\n</div>'
        )

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**(data or {}), "text/plain": repr(self), "text/html": self.to_html()}, metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Box(traitlets.List[float]):
    """A trait for a box [x_min, y_min, x_max, y_max]; `inside` names the trait with the (width, height) it lies in."""

    def __init__(self, *arguments: Any, inside: str = "size", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.inside = inside

    def validate(self, obj: Any, value: Any) -> Any:
        """Four finite numbers in order, inside the picture."""
        numbers = value.tolist() if isinstance(value, Tensor) else list(value) if isinstance(value, Iterable) else value
        wrong = f"{self.name} must be [x_min, y_min, x_max, y_max]"
        if not (isinstance(numbers, list) and len(numbers) == 4 and all(is_number(number) for number in numbers)):
            raise traitlets.TraitError(f"{wrong}, four finite numbers; got {value!r}")
        x_min, y_min, x_max, y_max = numbers
        if x_min > x_max or y_min > y_max:
            raise traitlets.TraitError(f"{wrong} with x_min <= x_max and y_min <= y_max; got {numbers}")
        width, height = getattr(obj, self.inside)
        if x_min < 0 or y_min < 0 or x_max > width or y_max > height:
            raise traitlets.TraitError(f"{wrong} inside the picture of {width} x {height}; got {numbers}")
        return numbers


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def all_finite(value: Any) -> bool:
    """Whether no number in a value (a number, a tensor, or lists and dictionaries of them) is NaN or infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return True
    return all(map(all_finite, value))


def plain(value: Any, digits: int = 6) -> Any:
    """Tensors and tuples as lists, numbers rounded: what fits into JSON, and reads the same on every machine."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return round(value, digits) + 0.0  # the sum turns minus zero into zero
    if isinstance(value, dict):
        return {str(key): plain(entry, digits) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, digits) for entry in value]
    return value


def image_url(image: str | os.PathLike[str] | Tensor | Image.Image, quality: int = 85) -> str:
    """An image as the address that holds it: a JPEG or PNG file as it is, a tensor (3, H, W) or PIL image as a JPEG."""
    if isinstance(image, (str, os.PathLike)):
        content = Path(image).read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            kind = opened.format
        if kind not in ("JPEG", "PNG"):
            raise ValueError(f"{image}: a widget shows JPEG and PNG files, not {kind}")
        return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
    buffer = io.BytesIO()
    (to_pil(image) if isinstance(image, Tensor) else image).convert("RGB").save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def open_url(address: str) -> Image.Image:
    """The image that an address made by `image_url` holds."""
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def png_url(figure: Figure, dots_per_inch: int = 100, colors: int = 96) -> str:
    """A figure as the address that holds it, with few colours, as pages carry many of them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white")
    small = Image.open(buffer).convert("RGB").quantize(colors, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""Drawings in the colours of the page: a figure of a notebook that is SVG becomes part of the page.

matplotlib draws black on white. Here the white sheet is left out, and black becomes the colour of the text, in light
and in dark mode, but for what lies on a photograph or on a coloured ground, which stays as it was drawn. Styles become
attributes, as a page may forbid styles in its text; names get the number of the figure, as pages hold several.

A figure, drawn or photographed, that would be too small to read on a phone is marked with the width that it needs:
there it scrolls in a box of its own (book.css, book.js).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
FONT = re.compile(r"(?P<style>(?:\w+ )*?)(?P<size>[\d.]+)px (?P<family>.+)")
Box = tuple[float, float, float, float]
LETTERS, HEIGHT = 9, 120  # pixels, which letters have at least on a phone, and a picture that is wider than high
PHONE, STEP = 360, 40  # pixels: what fits every phone, and the steps in which the style sheet knows wider ones
SOLID = 0.6  # the opacity from which a filled area hides the page behind it

ET.register_namespace("", SVG)
ET.register_namespace("xlink", LINK)


def themed(drawing: str, number: int, description: str) -> str:
    """A drawing of matplotlib as an element of a page.

    Args:
        drawing: SVG, as `ssdlib.book.as_drawing` makes it.
        number: of the figure on its page.
        description: what screen readers say instead; empty for a figure without a text.
    """
    root = ET.fromstring(drawing)
    for defs in root.findall(f"{{{SVG}}}defs"):
        for style in defs.findall(f"{{{SVG}}}style"):
            defs.remove(style)  # it would hold for the whole page
    size = (float(root.get("width", 0)), float(root.get("height", 0)))
    root.attrib |= {"stroke-linejoin": "round", "class": "drawing", "fill": "currentColor", "role": "img"}
    root.attrib |= {"aria-label": description} if description else {"aria-hidden": "true"}
    for element in root.iter():
        _style_to_attributes(element)
    letters = [float(text.get("font-size", "10").removesuffix("px")) for text in root.iter(f"{{{SVG}}}text")]
    units = float(root.get("viewBox", "0 0 1 1").split()[2])
    root.attrib["class"] = " ".join(["drawing", *width_class(size, min(letters, default=0) * size[0] / units)])
    _leave_out_sheets(root)
    named = {element.get("id", ""): element for element in root.iter(f"{{{SVG}}}image")}
    grounds = [box for element in root.iter() if (box := _ground(element, named))]
    for element, place in _with_places(root):
        _take_ink(element, place is not None and any(_holds(ground, place) for ground in grounds))
    _rename(root, number)
    return ET.tostring(root, encoding="unicode")


def width_class(size: tuple[float, float], letters: float = 0) -> list[str]:
    """The class that says how wide a figure has to be on a phone; none if it may be as narrow as that.

    Args:
        size: width and height in pixels where there is room.
        letters: size of its smallest letters there; 0 if it has none.
    """
    width, height = size
    factor = max(LETTERS / letters if letters else 0, HEIGHT / height if height else 0)
    steps = min(-(-width * factor // STEP), width // STEP)
    return [f"least-{steps * STEP:.0f}"] if steps * STEP > PHONE else []


def has_margin(page: str, sections: int, theme_options: Mapping[str, Any]) -> bool:
    """Whether a page has a list of contents beside it, which makes room for captions; the theme's script needs it.

    Args:
        page: its name.
        sections: how many it has, with the one of its title: one makes no list.
        theme_options: `html_theme_options`.
    """
    if sections < 2:
        return False
    items = theme_options.get("secondary_sidebar_items", {})
    return not (isinstance(items, dict) and items.get(page) == [])


def _style_to_attributes(element: ET.Element) -> None:
    for rule in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name == "font" and (found := FONT.fullmatch(value)):
            element.set("font-size", found["size"])
            element.set("font-family", found["family"])
            for word in found["style"].split():
                element.set("font-style" if word in ("italic", "oblique") else "font-weight", word)
        elif name and not (name == "image-rendering" and value == "crisp-edges"):
            element.set(name, value)


def _leave_out_sheets(root: ET.Element) -> None:
    """The white ground of the figure, and of each of its axes: the first patch in each, where it is white."""
    for group in root.iter(f"{{{SVG}}}g"):
        if re.fullmatch(r"figure_\d+|axes_\d+", group.get("id", "")):
            first = next((child for child in group if child.get("id", "").startswith("patch_")), None)
            path = first[0] if first is not None and len(first) else None
            if path is not None and path.get("fill") == "#ffffff" and path.get("stroke") in (None, "none"):
                group.remove(first)  # type: ignore[arg-type]


def _ground(element: ET.Element, images: dict[str, ET.Element]) -> Box | None:
    """The box of a picture, or of a filled area, on which letters keep their colours."""
    kind = element.tag.rpartition("}")[2]
    if kind == "use" and (again := images.get(element.get(f"{{{LINK}}}href", "#")[1:])) is not None:
        box = _ground(again, images)
        return _moved(box, element.get("transform", "")) if box else None
    if kind == "image":
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        box = (x, y, x + float(element.get("width", 0)), y + float(element.get("height", 0)))
        return _moved(box, element.get("transform", ""))
    fill = element.get("fill", "none")
    coloured = fill.startswith("#") and _gray(fill) is None
    opacity = float(element.get("fill-opacity", 1)) * float(element.get("opacity", 1))
    return _extent(element) if kind == "path" and coloured and opacity > SOLID else None


def _moved(box: Box, transform: str) -> Box:
    """A box after a matrix that stretches and moves."""
    found = re.fullmatch(r"matrix\(([^)]*)\)", transform)
    if found is None:
        return box
    a, _, _, d, x, y = map(float, found[1].split())
    across, down = sorted((box[0] * a + x, box[2] * a + x)), sorted((box[1] * d + y, box[3] * d + y))
    return across[0], down[0], across[1], down[1]


def _extent(path: ET.Element) -> Box | None:
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", path.get("d", ""))]
    across, down = numbers[0::2], numbers[1::2]
    return (min(across), min(down), max(across), max(down)) if down else None


def _with_places(root: ET.Element) -> Iterator[tuple[ET.Element, Box | None]]:
    """All elements that draw, each with the box that it covers or a point of it, or None where that is not known."""
    hidden = {element for defs in root.iter(f"{{{SVG}}}defs") for element in defs.iter()}
    windows = {
        f"url(#{clip.get('id')})": (x, y, x + float(rect.get("width", 0)), y + float(rect.get("height", 0)))
        for clip in root.iter(f"{{{SVG}}}clipPath")
        for rect in clip.iter(f"{{{SVG}}}rect")
        for x, y in [(float(rect.get("x", 0)), float(rect.get("y", 0)))]
    }
    for element in root.iter():
        kind = element.tag.rpartition("}")[2]
        if kind == "text":
            yield element, _text_place(element)
        elif kind == "use" and element.get("transform") is None:
            x, y = float(element.get("x", 0)), float(element.get("y", 0))
            yield element, (x, y, x, y)
        elif kind == "path" and element.get("clip-path") and element not in hidden:
            box, window = _extent(element), windows.get(element.get("clip-path", ""))
            yield element, _cut(box, window) if box and window else box
        elif kind == "path":
            yield element, None


def _cut(box: Box, window: Box) -> Box:
    """What is seen of a box through a window."""
    x, y = max(box[0], window[0]), max(box[1], window[1])
    return x, y, max(x, min(box[2], window[2])), max(y, min(box[3], window[3]))


def _text_place(text: ET.Element) -> Box | None:
    """A point of a text, a little above where its line begins or, by its anchor, has its middle or end."""
    found = re.search(r"translate\(([-\d.]+)[ ,]+([-\d.]+)\)", text.get("transform", ""))
    if found is None and text.get("x") is None:
        return None
    x, y = (float(found[1]), float(found[2])) if found else (float(text.get("x", 0)), float(text.get("y", 0)))
    x += {"start": 2.0, "middle": 0.0, "end": -2.0}[text.get("text-anchor", "start")]
    return x, y - 2, x, y - 2


def _holds(ground: Box, place: Box) -> bool:
    """Whether something lies on a ground, but for the width of a line."""
    return (
        ground[0] <= place[0] + 1
        and place[2] <= ground[2] + 1
        and ground[1] <= place[1] + 1
        and place[3] <= ground[3] + 1
    )


def _take_ink(element: ET.Element, on_ground: bool) -> None:
    """Black, gray and white become the colour of the text, as strong as the gray is dark, and that of the paper."""
    if on_ground and element.get("fill") is None:
        element.set("fill", "#000000")  # which is matplotlib's, where nothing is said
    for name in ("fill", "stroke"):
        level = _gray(element.get(name, ""))
        if on_ground or level is None:
            continue
        if level == 255:
            element.set("class", f"{element.get('class', '')} paper-{name}".strip())
            continue
        element.set(name, "currentColor")
        if level:
            element.set(f"{name}-opacity", f"{float(element.get(f'{name}-opacity', 1)) * (1 - level / 255):.2g}")


def _gray(color: str) -> int | None:
    """The level of a gray "#XXXXXX", 0 for black; None for what is no gray."""
    found = re.fullmatch(r"#([0-9a-f]{2})\1\1", color)
    return int(found[1], 16) if found else None


def _rename(root: ET.Element, number: int) -> None:
    """Names that are referred to get the number of the figure; the others go."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in used:
            element.set("id", f"drawing-{number}-{name}")
        for key, value in list(element.attrib.items()):
            if key == f"{{{LINK}}}href":
                del element.attrib[key]
                element.set("href", f"#drawing-{number}-{value[1:]}" if value.startswith("#") else value)
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#drawing-{number}-"))


class DrawOnPage(SphinxPostTransform):
    """Put the drawings of notebooks into the text of their pages."""

    default_priority = 150  # when the form of each output is chosen, and before images are collected
    formats = ("html",)

    def run(self, **options: Any) -> None:
        """Do it for one page."""
        sections = len(list(self.document.findall(nodes.section)))
        for number, image in enumerate(list(self.document.findall(nodes.image)), start=1):
            path = Path(image["uri"])
            if not path.is_absolute():
                path = Path(self.app.srcdir) / path
            captioned = isinstance(image.parent, nodes.figure) and image.parent.next_node(nodes.caption)
            if captioned and has_margin(self.env.docname, sections, self.config.html_theme_options):
                image.parent["classes"].append("margin-caption")  # the theme's: its contents make room for it
            if path.suffix == ".svg" and re.fullmatch(r"[0-9a-f]{64}", path.stem):  # an output's name is its checksum
                drawing = themed(path.read_text(encoding="utf-8"), number, image.get("alt", ""))
                image.parent.replace(image, nodes.raw("", drawing, format="html", classes=["output", "drawing"]))
            elif path.suffix in (".png", ".jpg") and path.is_file():
                with Image.open(path) as picture:
                    classes = width_class((picture.width / 2, picture.height / 2))  # two dots for a pixel
                image["classes"] += classes
                if classes:
                    box = nodes.container(classes=["drawing"])
                    image.parent.replace(image, box)
                    box += image


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the transform."""
    app.add_post_transform(DrawOnPage)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

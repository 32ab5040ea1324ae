"""The sheet of images: what is drawn where, what is chosen, and that nothing of the data becomes markup."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.browser import OpenPage
from support.voc_folder import object_xml, write_annotation, write_image, write_voc

from ssdlib.data import Sheet, make_sheet, open_dataset

SMALL = object_xml("cat", 5, 5, 9, 9)
TAGS = """
    html head meta title style body h1 p label select option output div figure svg image g rect text figcaption b br
    span script
"""
NASTY = "<b onclick='x'>&\"cat\""


class Reader(HTMLParser):
    """The elements with their attributes, and the texts, of a sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def names(sheet: Sheet) -> list[str]:
    """File names of the images, in the order of the sheet."""
    return [str(svg["aria-label"]).split(":")[0].removesuffix(".png") for svg in Reader(sheet.page()).all("svg")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    objects = {
        "a": [object_xml("cat", 11, 6, 30, 25)],  # edges 10, 5, 30, 25
        "b": [object_xml("dog", 1, 1, 40, 30), object_xml("dog", 1, 1, 4, 3)],
        "c": [
            object_xml("cat", 1, 1, 2, 30, difficult=1),
            object_xml("dog", 3, 3, 14, 14),
            object_xml("cat", 5, 5, 9, 9),
        ],
        "d": [],
        "e": [object_xml("cat", 5, 5, 5, 9)],  # refused
    }
    return write_voc(tmp_path_factory.mktemp("data") / "set", {"all": list(objects)}, objects)


@pytest.fixture(scope="module")
def dataset(root: Path):
    with pytest.warns(UserWarning, match="zero area"):
        return open_dataset(root, "all")


def test_boxes_are_where_the_objects_are(dataset):
    page = Reader(make_sheet(dataset, side=20).page())
    first = page.found[page.found.index(("svg", page.all("svg")[0])) :]
    assert first[0][1]["viewbox"] == "0 0 40 30"
    rects = [attributes for tag, attributes in first if tag == "rect"][:2]
    assert [(r["x"], r["y"], r["width"], r["height"]) for r in rects] == [("10", "5", "20", "20")] * 2
    data = str(page.all("image")[0]["href"]).removeprefix("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (20, 15)
    assert len(page.all("rect")) == 2 * 6
    assert "cat, size 0.577" in page.texts  # the root of 20 * 20 / (40 * 30)
    assert any("difficult" in text for text in page.texts)
    assert "refused 1 (zero area 1)" in page.texts


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "abcde"),
        ({"limit": 2}, "ab"),
        ({"classes": ["cat"]}, "ac"),
        ({"classes": ["dog"], "order": "most"}, "bc"),
        ({"order": "smallest"}, "bcade"),
        ({"order": "largest"}, "bacde"),
        ({"order": "most"}, "cbade"),
        ({"order": "thinnest"}, "cbade"),
        ({"smaller": 0.11}, "b"),
        ({"larger": 0.5}, "ab"),
        ({"classes": ["cat"], "larger": 0.2, "smaller": 0.3}, "c"),
        ({"classes": ["dog"], "larger": 0.99}, "b"),
        ({"classes": ["cat"], "larger": 0.9}, ""),
    ],
)
def test_what_is_chosen(options: dict[str, object], expected: str, dataset):
    assert "".join(names(make_sheet(dataset, **options))) == expected


def test_what_was_not_asked_for_is_drawn_in_another_way(dataset):
    sheet = make_sheet(dataset, classes=["cat"], larger=0.2)
    groups = Reader(sheet.page()).all("g")
    assert [(g["class"], g["data-name"]) for g in groups] == [
        ("asked", "cat"),
        ("other", "dog"),
        ("other", "cat"),
        ("asked", "cat"),
    ]
    assert sheet.note == "2 of 2 images with 2 objects, of 5 images in the set"


def test_unknown_names(dataset):
    with pytest.raises(ValueError, match="no class 'cow'; there are cat, dog"):
        make_sheet(dataset, classes=["cow"])
    with pytest.raises(ValueError, match="no order 'age'; there are file, smallest"):
        make_sheet(dataset, order="age")


def test_nothing_of_the_data_becomes_markup(tmp_path: Path):
    root = write_voc(tmp_path / "set", {"all": []})
    name = "a'&<i>b"
    write_annotation(root, name.replace("<", "_"), [object_xml("x", 1, 1, 20, 20)])
    file = root / "Annotations" / "a'&_i>b.xml"
    escaped = NASTY.replace("&", "&amp;").replace("<", "&lt;")
    file.write_text(file.read_text().replace("<name>x</name>", f"<name>{escaped}</name>"))
    write_image(root, "a'&_i>b.png")
    (root / "ImageSets" / "Main" / "all.txt").write_text("a'&_i>b\n")
    sheet = make_sheet(open_dataset(root, "all"), title=f"</title>{NASTY}")
    for html in (sheet.page(), sheet._repr_html_()):
        read = Reader(html)
        assert {tag for tag, _ in read.found} <= set(TAGS.split())
        assert not [key for _, attributes in read.found for key in attributes if key.startswith("on")]
        (group,) = read.all("g")
        assert group["data-name"] == NASTY
        assert read.all("svg")[0]["aria-label"] == f"a'&_i>b.png: 1 {NASTY}"
        assert NASTY in read.texts
        assert "http" not in html
    assert len(Reader(sheet.page()).all("script")) == 1
    assert not Reader(sheet._repr_html_()).all("script")


@pytest.mark.browser
@pytest.mark.parametrize(("width", "theme"), [(320, "dark"), (1280, "light")])
def test_in_a_browser(width: int, theme: str, dataset, open_page: OpenPage, tmp_path: Path):
    """From a file, without a network, by keyboard; nothing is wider than the screen."""
    (tmp_path / "sheet.html").write_text(make_sheet(dataset).page(), encoding="utf-8")
    page = open_page((tmp_path / "sheet.html").as_uri(), width=width, theme=theme)
    assert page.locator("figure:visible").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.querySelectorAll('image')].every(i => i.getBBox().width > 0)")
    page.keyboard.press("Tab")
    page.keyboard.press("d")  # the class that begins with it
    assert page.locator("output").inner_text() == "3 objects in 2 of these images"
    assert page.locator("figure:visible").count() == 2
    assert page.locator("g:visible").count() == 3
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != (
        "rgb(255, 255, 255)" if theme == "dark" else "rgb(18, 18, 18)"
    )

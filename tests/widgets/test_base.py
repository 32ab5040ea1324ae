"""The base of the widgets: checks of values, state, and HTML in which no text of a data set can become markup."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from traitlets import TraitError
from widget_pages import bundle, module_names

from ssdlib.data import VOCDataset, sample_root
from ssdlib.widgets import BookWidget, JaccardPlayground, NmsStepper
from ssdlib.widgets.base import SHARED, STATIC, image_url, plain

EVIL = ["</script><script>alert(1)</script>", "<!--<script>", '"><img src=x onerror=alert(1)>', "\u2028 & ' \" \\"]


class Elements(HTMLParser):
    """Collects the elements of a page and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("evil", EVIL)
def test_texts_stay_texts_in_the_html(evil: str) -> None:
    found = Elements(JaccardPlayground(title=evil).to_html())
    assert found.tags == ["div", "img", "script"]
    state = next(text for text in found.texts if text.startswith("{"))
    assert json.loads(state)["title"] == evil


def test_html_is_the_same_each_time_and_holds_a_picture() -> None:
    first, second = JaccardPlayground(), JaccardPlayground()
    assert first.model_id != second.model_id
    assert first.to_html() == second.to_html()
    assert first.model_id not in first.to_html()
    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', first.to_html())
    assert encoded
    with Image.open(io.BytesIO(base64.b64decode(encoded[1]))) as picture:
        assert picture.width > 300
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 5  # not an empty sheet


def test_bundle_of_an_output_has_the_live_view_and_the_page() -> None:
    widget = JaccardPlayground()
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["text/html"] == widget.to_html()
    assert data["text/plain"] == "JaccardPlayground()"


def test_state_is_that_of_the_widget_alone() -> None:
    assert set(JaccardPlayground().state()) == {"box_a", "box_b", "presets", "size", "title"}


def test_plain_rounds_and_unpacks() -> None:
    value = {"a": torch.tensor([0.1, -0.0]), "b": (1, True, None, "x"), "c": -1e-9}
    assert json.dumps(plain(value)) == '{"a": [0.1, 0.0], "b": [1, true, null, "x"], "c": 0.0}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2, 3], "four finite numbers"),
        ([1, 2, 3, "4"], "four finite numbers"),
        ([1, 2, 3, float("inf")], "finite numbers"),
        (None, "four finite numbers"),
        ([5, 0, 2, 1], "x_min <= x_max"),
        ([0, 0, 301, 10], "inside the picture of 300 x 200"),
        ([-1, 0, 30, 10], r"box_a must be .* got \[-1, 0, 30, 10\]"),
    ],
)
def test_bad_boxes_are_refused_at_once(value: object, message: str) -> None:
    widget = JaccardPlayground()
    before = widget.box_a
    with pytest.raises(TraitError, match=message):
        widget.box_a = value
    assert widget.box_a == before


def test_boxes_may_be_tensors_and_are_checked_against_the_size_that_comes_with_them() -> None:
    widget = JaccardPlayground(box_a=torch.tensor([0.0, 0.0, 500.0, 10.0]), box_b=[0, 0, 1, 1], size=(600, 400))
    assert widget.box_a == [0.0, 0.0, 500.0, 10.0]


def test_image_url_keeps_files_and_encodes_tensors(tmp_path: Path) -> None:
    dataset = VOCDataset(sample_root(), "test")
    path = dataset.image_path(0)
    assert base64.b64decode(image_url(path).split(",")[1]) == path.read_bytes()
    address = image_url(dataset[0][0])
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as image:
        assert image.size == dataset[0][0].shape[:0:-1]
    Image.new("RGB", (4, 4)).save(tmp_path / "x.gif")
    with pytest.raises(ValueError, match=r"x\.gif.*not GIF"):
        image_url(tmp_path / "x.gif")


def test_jaccard_playground_measures_with_the_library() -> None:
    widget = JaccardPlayground(box_a=[0, 0, 100, 100], box_b=[50, 0, 150, 100])
    assert widget.iou == pytest.approx(1 / 3)
    assert "0.333" in widget.describe()
    widget.box_b = [120, 0, 120, 100]
    assert widget.iou == 0


def test_every_module_is_named_by_one_widget_and_stands_alone() -> None:
    widgets = [cls for cls in BookWidget.__subclasses__() if cls.__module__.startswith("ssdlib.widgets.")]
    assert sorted(cls._module for cls in widgets) == module_names()
    for name in module_names():
        source = (STATIC / f"{name}.mjs").read_text(encoding="utf-8")
        assert len(re.findall(r"^export\b", source, re.MULTILINE)) == 1
        assert not re.search(r"^\s*import\b|\binnerHTML\b|\bfetch\(", source, re.MULTILINE)
    for name in (*SHARED, "loader", *(path.stem for path in STATIC.glob("*.*.mjs"))):
        assert name.partition(".")[0] in (*SHARED, "loader", *module_names())  # the part of a module that there is
        source = (STATIC / f"{name}.mjs").read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|export)\b|\binnerHTML\b|\bfetch\(", source, re.MULTILINE)
    assert "export" not in re.sub(r"//.*", "", bundle())


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_numbers_from_the_page_are_finite(odd: float) -> None:
    widget = JaccardPlayground()
    before = widget.state()
    for name, value in {"presets": [{"name": "odd", "box_a": [0, odd, 1, 1]}], "box_a": [0, 0, odd, 1]}.items():
        with pytest.raises(TraitError, match=f"{name} must"):
            widget.set_state({name: value})  # what arrives from the browser
        with pytest.raises(TraitError, match=f"{name} must"):
            setattr(widget, name, value)
    stepper = NmsStepper(torch.rand(3, 20, 30), boxes=[[1.0, 1, 9, 9]], scores=[0.9], labels=[1], classes=["ball"])
    with pytest.raises(TraitError, match="boxes must be made of finite numbers"):
        stepper.boxes = torch.tensor([[1.0, odd, 9, 9]])
    assert widget.state() == before

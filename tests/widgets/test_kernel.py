"""The widgets that need Python: what they compute, what they say about bad input, and their note on a page."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from ssdlib.data import VOCDataset, sample_root
from ssdlib.engine.presets import PRESETS
from ssdlib.widgets.kernel import TryYourImage, WatchTraining
from ssdlib.zoo.checkpoint import demo_model


def upload(widget: TryYourImage, content: bytes, version: int) -> None:
    """What ipywidgets does when the reader has chosen a file."""
    file = {"name": "<b>x</b>.jpg", "content": memoryview(content) if version == 8 else content}
    widget._uploaded({"new": (file,) if version == 8 else {file["name"]: file}})


@pytest.mark.parametrize("version", [7, 8])
def test_an_uploaded_image_is_searched(version: int) -> None:
    model, dataset = demo_model(), VOCDataset(sample_root(), "test")
    widget = TryYourImage(model)
    upload(widget, dataset.image_path(1).read_bytes(), version)
    (found,) = model.predict([dataset[1][0]], min_score=0.5)
    assert len(found["labels"]) > 0
    shown = widget.found.value.removeprefix("found: ").split(", ")
    assert sum(int(entry.split()[0]) for entry in shown) == len(found["labels"])
    with Image.open(io.BytesIO(widget.picture.value)) as picture:
        assert picture.size == dataset[1][0].shape[:0:-1]
    widget.min_score.value = 0.95
    (fewer,) = model.predict([dataset[1][0]], min_score=0.95)
    assert len(fewer["labels"]) < len(found["labels"]) or widget.found.value.startswith("found")


def test_a_file_that_is_no_image_is_named_as_such() -> None:
    widget = TryYourImage(demo_model())
    upload(widget, b"GIF89a and then nothing", 8)
    assert "cannot be read as an image" in widget.found.value
    assert widget.picture.layout.display == "none"
    widget.min_score.value = 0.3
    assert "cannot be read" in widget.found.value


def test_training_is_drawn_while_it_goes_on() -> None:
    dataset = VOCDataset(sample_root(), "val")
    widget = WatchTraining(PRESETS["tiny"], dataset)
    widget.iterations.min = 3
    widget.iterations.value = 3
    widget.train()
    assert widget.state.value == "done after 3 steps"
    assert [line["step"] for line in widget.lines] == [2, 3]
    assert bytes(widget.curve.value).startswith(b"\x89PNG")
    assert widget.model is not None
    assert widget.model.classes == dataset.classes
    assert not widget.button.disabled


def test_a_loss_that_explodes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    widget = WatchTraining(PRESETS["tiny"], VOCDataset(sample_root(), "val"))

    def explode(*arguments: object, **options: object) -> None:
        raise FloatingPointError("the confidence loss became inf in step 2")

    monkeypatch.setattr("ssdlib.widgets.kernel.train", explode)
    widget.button.click()
    assert widget.state.value == "stopped: the confidence loss became inf in step 2"
    assert not widget.button.disabled


def test_a_page_without_a_kernel_says_what_it_lacks() -> None:
    data, _ = TryYourImage(demo_model())._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "Needs a kernel" in data["text/html"]
    assert data["text/plain"] == "TryYourImage()"

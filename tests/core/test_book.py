"""What chapters need besides the library: glued numbers, and results that were recorded before."""

from __future__ import annotations

import io
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D
from PIL import Image

from ssdlib import book
from ssdlib.book import RECORDS, glue, recorded


def test_every_record_is_read_by_its_name():
    files = sorted(RECORDS.glob("*.json"))
    assert {"speed", "tiny_toy"} <= {path.stem for path in files}
    for path in files:
        assert recorded(path.stem) == json.loads(path.read_text(encoding="utf-8"))
        record = recorded(path.stem)
        assert "command" in record
        for run in record.get("runs", [record]):  # when and on what it was made is said of all, or of each
            assert {"commit", "date", "hardware"} <= {**record, **run}.keys()


@pytest.mark.parametrize("name", ["tiny_moon", "", "speed.json"])
def test_missing_record_is_named_with_those_that_there_are(name):
    with pytest.raises(FileNotFoundError, match=f"no record {name!r} in .*records; there are .*accuracy, .*tiny_toy"):
        recorded(name)


def test_glued_value_reads_as_it_was_written(monkeypatch):
    shown = []
    monkeypatch.setattr(book, "display", lambda data, **options: shown.append((data, options)))
    glue("priors_all", "8,732")
    ((data, options),) = shown
    prefix = options["metadata"]["scrapbook"]["mime_prefix"]
    assert options["metadata"]["scrapbook"]["name"] == "priors_all"
    assert data == {f"{prefix}text/plain": "'8,732'"}  # a literal of Python: without quotes it would be a pair


# ---- the form of figures ---------------------------------------------------------------------------------------


def photographs(count: int, side: int = 120) -> Figure:
    """A figure that shows one photograph several times, at two sizes."""
    figure = Figure(figsize=(6, 3))
    pixels = np.random.default_rng(0).normal(128, 20, (side, side, 3)).clip(0, 255).astype(np.uint8)
    for number, axes in enumerate(figure.subplots(1, count, width_ratios=range(1, count + 1), squeeze=False).flat):
        axes.imshow(pixels)
        axes.set_title(f"number {number}")
    return figure


def test_a_drawing_is_the_same_each_time_and_small() -> None:
    drawing = book.as_drawing(photographs(3))
    assert drawing == book.as_drawing(photographs(3))
    assert drawing is not None
    root = ElementTree.fromstring(drawing)
    assert root.get("width") == str(round(float(root.get("viewBox", "").split()[2]) * 110 / 72))  # as its dots were
    assert "\n" not in drawing
    assert "number 2</text>" in drawing  # letters, not their outlines
    assert drawing.count("data:image/jpeg") == 1  # once, in its own resolution
    assert drawing.count("<use ") == 2 + drawing.count('<use xlink:href="#m')
    assert 'width="120" height="120"' in drawing


def test_a_map_of_numbers_keeps_its_squares() -> None:
    figure = Figure()
    axes = figure.add_subplot()
    axes.imshow(np.arange(16).reshape(4, 4), interpolation="bilinear")
    drawing = book.as_drawing(figure)
    assert drawing is not None
    assert "data:image/png" in drawing
    assert "image-rendering:pixelated" in drawing
    assert axes.get_images()[0].get_interpolation() == "bilinear"  # the figure is left as it was


def test_a_picture_again_is_at_its_own_place() -> None:
    """The first picture's matrix, then that of the reference, is the matrix that the second picture would have."""
    drawing = book.as_drawing(photographs(2))
    assert drawing is not None
    matrices = [[float(n) for n in m.split()] for m in re.findall(r'transform="matrix\(([^)]*)\)"', drawing)]
    (a, _, _, d, x, y), (across, _, _, down, right, low) = matrices
    first, second = Affine2D.from_values(a, 0, 0, d, x, y), Affine2D.from_values(across, 0, 0, down, right, low)
    corners = (first + second).transform([(0, 0), (120, 120)])
    frame = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawing)[1]
    left, top, width, height = map(float, frame)
    assert corners.ravel().tolist() == pytest.approx([left, top, left + width, top + height], abs=0.6)


def test_a_figure_of_very_many_lines_is_made_of_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = photographs(1)
    assert book.as_dots(figure) is None
    monkeypatch.setattr(book, "LARGEST_DRAWING", 1000)
    assert book.as_drawing(figure) is None
    dots = book.as_dots(figure)
    assert dots is not None
    data, size = dots
    width, height = Image.open(io.BytesIO(data)).size
    assert (width // 2, height // 2) == (size["width"], size["height"])
    assert book.as_drawing(Figure()) is None
    assert book.as_dots(Figure()) is None


def crowded() -> Figure:
    """Boxes of two colours, of which some shine through, and a filled one between them."""
    figure = Figure()
    axes = figure.add_subplot()
    for number in range(12):
        style = {"alpha": 0.5} if number > 8 else {"facecolor": "red"} if number == 4 else {}
        color = "red" if number < 7 else "blue"
        axes.add_patch(Rectangle((number / 20, 0.1), 0.3, 0.5, **{"facecolor": "none", "edgecolor": color, **style}))
    return figure


def test_lines_of_one_style_are_one_path_in_a_drawing_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.compile(r'<path d="([^"]+)" clip-path="[^"]+" style="fill: (\w+|#\w+);')
    plain = book.as_drawing(crowded())
    assert plain is not None
    monkeypatch.setattr(book, "LARGEST_DRAWING", len(plain) - 1)
    shorter = book.as_drawing(crowded())
    assert shorter is not None
    ElementTree.fromstring(shorter)
    assert len(lines.findall(plain)) == 12
    paths = lines.findall(shorter)
    assert [(d.count("M"), fill) for d, fill in paths] == [
        (4, "none"),
        (1, "#ff0000"),
        (2, "none"),
        (2, "none"),
        *[(1, "none")] * 3,  # where they cross, more than one is seen
    ]
    assert "".join(d for d, _ in paths) == "".join(d for d, _ in lines.findall(plain))


@pytest.mark.slow
def test_a_notebook_shows_drawings() -> None:
    """From the first figure on, in a kernel as the book's are."""
    source = (
        "import matplotlib.pyplot as plt\nfrom ssdlib.plotting import use_book_style\nuse_book_style()\nplt.plot([1])"
    )
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    shown = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source + ";")])
    client.NotebookClient(shown, kernel_name="python3", timeout=120).execute()
    (output,) = shown.cells[0].outputs
    assert output.data.keys() == {"image/svg+xml", "text/plain"}

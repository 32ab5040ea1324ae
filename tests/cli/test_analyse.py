"""`ssd analyse`: figures, sentences, page and folder, on a small detector and on names that are no friends."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from PIL import Image
from support.browser import OpenPage, violations
from support.commands import call, refused
from support.voc_folder import object_xml, write_voc

from ssdlib.cli.analysis_pictures import Box, confusion_figure, example_picture, most_confused, window
from ssdlib.data import sample_root
from ssdlib.engine.error_kinds import KINDS, costs, find_errors, mean_of
from ssdlib.metrics import ConfusionMatrix
from ssdlib.model import build_model
from ssdlib.zoo.checkpoint import demo_model, save_model

CPU = ("--workers", 0, "--device", "cpu")
EVIL = "<script>alert(1)</script> & \"quoted\" 'too'"
EVIL_FILE = "a<b onload=x>&'c"


TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "nav",
        "main",
        "footer",
        "h1",
        "h2",
        "p",
        "b",
        "i",
        "a",
    ),
    *("ul", "ol", "li", "dl", "dt", "dd", "div", "span", "table", "caption", "thead", "tbody", "tr", "th", "td", "br"),
    *("figure", "figcaption", "img"),
}


class Seen(HTMLParser):
    """Tags with their attributes, and the text, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(demo_model(), tmp_path_factory.mktemp("demo") / "demo.safetensors")


@pytest.fixture(scope="module")
def made(demo: Path) -> tuple[Path, str]:
    """The folder for the package's detector on its sample, and what the command printed."""
    out = demo.parent / "analysis"
    result = call("analyse", demo, "--data", sample_root(), "--out", out, "--examples", 4, *CPU)
    assert result.exit_code == 0, result.output
    return out, result.output


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector that has learned nothing, and images, with names that would be tags."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("evil")
    names = [EVIL, "dog", "_cow", "$x$", "猫", "w" * 255]
    run = save_model(build_model("ssd_tiny", names), folder / "evil.safetensors")
    xml = [EVIL.replace("&", "&amp;").replace("<", "&lt;"), "dog"]
    objects = {
        EVIL_FILE: [object_xml(xml[0], 1, 1, 31, 21), object_xml(xml[1], 20, 2, 38, 28)],
        "b": [object_xml("dog", 3, 3, 33, 27), object_xml("dog", 8, 8, 9, 9, difficult=1)],
        "c": [],
    }
    root = write_voc(folder / "data", {"test": list(objects), "none": ["c"]}, objects)
    return run, root


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "analysis.json").read_text(encoding="utf-8"))
    return found


def test_the_figures_are_those_of_the_library(made: tuple[Path, str]) -> None:
    from ssdlib.data import open_dataset
    from ssdlib.engine import detect_dataset

    figures, model = record(made[0]), demo_model()
    found, targets = detect_dataset(model, open_dataset(sample_root(), "test", model.classes), progress=False)
    errors = find_errors(found, targets, model.num_classes)
    for kind, of_class in costs(errors).items():
        assert figures["errors"][kind]["cost"] == pytest.approx(mean_of(of_class))
        assert figures["errors"][kind]["count"] == errors.counts()[kind] > 0
        assert figures["errors"][kind]["cost_by_class"][model.classes[0]] == pytest.approx(of_class[1])
    assert figures["errors"]["background"]["count_in_use"] == errors.counts(0.3)["background"]
    assert sum(map(sum, figures["confusion"]["counts"][1:])) == figures["objects"] == 86
    assert figures["reliability"]["bins"] == len(figures["reliability"]["groups"]) == 10
    assert figures["detection"] == {"min_score": 0.01, "max_overlap": 0.45, "top_k": 200}
    assert figures["data"] == [str(sample_root())]
    assert figures["model"]["architecture"] == "ssd_tiny"


def test_the_screen_says_what_costs(made: tuple[Path, str]) -> None:
    out, output = made
    figures = record(out)
    for title, kind in (("Wrong class", "class"), ("Missed", "missed")):
        row = figures["errors"][kind]
        assert re.search(rf"^{title} +{row['count']} +{row['cost']:.3f}$", output, re.M)
    assert f"On 32 images with 86 objects, the mAP is {figures['mAP']:.3f} at an IoU of 0.5." in output
    assert output.rstrip().endswith(f"page: {out / 'index.html'}")


def test_the_page_has_it_all(made: tuple[Path, str]) -> None:
    html = (made[0] / "index.html").read_text(encoding="utf-8")
    page, figures = Seen(html), record(made[0])
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    addresses = [a.get("src") or a.get("href") or "" for _, a in page.tags if "src" in a or "href" in a]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {address[1:] for address in addresses if address[0] == "#"} <= ids
    assert "default-src 'none'" in html
    pictures = page.all("img")
    assert all(len(picture["alt"] or "") > 20 for picture in pictures)
    assert len([p for p in pictures if (p["src"] or "").startswith("data:image/jpeg")]) == 8
    assert "The 4 with the highest scores" in page.text
    assert "The 4 largest objects" in page.text
    for row in figures["errors"].values():
        assert f"{row['cost']:.3f}" in page.text
    for name, ap in figures["AP"].items():
        assert re.search(rf"{name}\s*\d+\s*{ap:.3f}", page.text)
    assert len(html) < 1_000_000


def test_examples_are_the_pictures_of_their_images(made: tuple[Path, str]) -> None:
    page = Seen((made[0] / "index.html").read_text(encoding="utf-8"))
    jpegs = [p for p in page.all("img") if (p["src"] or "").startswith("data:image/jpeg")]
    for picture in jpegs:
        image = Image.open(io.BytesIO(base64.b64decode((picture["src"] or "").partition(",")[2])))
        assert max(image.size) == 320
        (name,) = re.findall(r"test_\d+\.jpg", picture["alt"] or "")
        assert (sample_root() / "JPEGImages" / name).is_file()


@pytest.mark.browser
def test_the_page_in_a_browser(evil: tuple[Path, Path], open_page: OpenPage, tmp_path: Path) -> None:
    """No script, no request, nothing too wide, readable in both themes; the names are text."""
    run, root = evil
    options = ("--score", 0.2, "--examples", 3, "--top-k", 20)
    assert call("analyse", run, "--data", root, "--out", tmp_path / "why", *options, *CPU).exit_code == 0
    address = (tmp_path / "why" / "index.html").as_uri()
    for theme, width in (("light", 390), ("dark", 1280), ("light", 320)):
        page = open_page(address, theme=theme, width=width)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not violations(page)
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "#kinds"
    assert EVIL in page.inner_text("main")
    assert page.query_selector("main script") is None


def test_names_are_escaped_wherever_they_stand(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    out = tmp_path / "<b>why & what"
    result = call("analyse", run, "--data", root, "--out", out, "--score", 0.2, "--examples", 5, "--top-k", 20, *CPU)
    assert result.exit_code == 0, result.output
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "<script" not in html
    page = Seen(html)
    assert EVIL in page.text
    assert f"{EVIL_FILE}.png" in page.text
    assert any(EVIL_FILE in (picture["alt"] or "") for picture in page.all("img"))
    assert {tag for tag, _ in page.tags} <= TAGS
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert record(out)["confusion"]["labels"][1] == EVIL


def test_a_set_without_objects(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    options = ("--image-set", "none", "--score", 0.2, "--min-score", 0.15, *CPU)
    result = call("analyse", run, "--data", root, "--out", tmp_path / "why", *options)
    assert result.exit_code == 0, result.output
    assert "No object that counts is labelled in 1 image, so that there is no AP" in result.output
    figures = record(tmp_path / "why")
    assert (figures["mAP"], figures["objects"]) == (None, 0)
    assert all(row["cost"] is None for row in figures["errors"].values())
    assert "<p>There is none.</p>" in (tmp_path / "why" / "index.html").read_text(encoding="utf-8")  # of misses


def test_no_detections(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    result = call(
        *("analyse", run, "--data", root, "--out", tmp_path / "why", *CPU),
        *("--min-score", 1, "--score", 1, "--iou", 0.1, "--examples", 0),
    )
    assert result.exit_code == 0, result.output
    figures = record(tmp_path / "why")
    assert figures["errors"]["missed"]["cost"] == 1.0
    assert (figures["errors"]["missed"]["count"], figures["least_overlap"]) == (3, 0.05)
    html = (tmp_path / "why" / "index.html").read_text(encoding="utf-8")
    assert "<p>There is none.</p>" in html  # of false alarms
    assert "<p>There are 3; none is drawn.</p>" in html
    assert "What costs most are missed objects: with these alone mended, the mAP would be 1.000" in result.output


def test_json_alone(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    file = tmp_path / "figures.json"
    result = call("analyse", run, "--data", root, "--json", file, "--top-k", 20, *CPU)
    assert result.exit_code == 0, result.output
    assert json.loads(file.read_text())["made_by"] == "ssd analyse"
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]
    assert not (run.parent / "analysis").exists()
    assert "leave out --out" in refused("analyse", run, "--data", root, "--json", file, "--out", tmp_path / "why")
    before = file.read_bytes()
    picture = root / "JPEGImages" / "b.png"
    assert "which is read" in refused("analyse", run, "--data", root, "--json", picture, *CPU)
    (tmp_path / "alias.json").hardlink_to(picture)
    assert "would replace" in refused("analyse", run, "--data", root, "--json", tmp_path / "alias.json", *CPU)
    assert file.read_bytes() == before


def test_only_its_own_folder_is_replaced(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    asked = ("analyse", run, "--data", root, "--top-k", 5, "--examples", 1, *CPU, "--out")
    why = tmp_path / "why"
    why.mkdir()  # an empty folder is nobody's
    assert call(*asked, why).exit_code == 0
    first = (why / "index.html").read_bytes()
    assert call(*asked, why, "--score", 0.4).exit_code == 0
    assert (why / "index.html").read_bytes() != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["why"]

    (why / "notes.txt").write_text("mine")
    kept = {path.name: path.read_bytes() for path in why.iterdir()}
    assert "holds 'notes.txt', which we did not make" in refused(*asked, why)
    assert {path.name: path.read_bytes() for path in why.iterdir()} == kept

    other = tmp_path / "other"
    other.mkdir()
    (other / "index.html").write_text("my page")
    assert "holds 'index.html', which we did not make" in refused(*asked, other)
    (other / "analysis.json").write_text('{"made_by": "somebody"}')
    assert "which we did not make" in refused(*asked, other)
    assert (other / "index.html").read_text() == "my page"
    assert "which we did not make" in refused(*asked, root)
    assert "which is read" in refused(*asked, root / "Annotations" / "why")
    assert "index.html" in refused(*asked, other / "index.html")


def test_a_page_that_fails_leaves_the_old_one(
    evil: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, root = evil
    asked = ("analyse", run, "--data", root, "--top-k", 5, "--examples", 1, *CPU, "--out", tmp_path / "why")
    assert call(*asked).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()}
    write = Path.write_text

    def full(self: Path, text: str, **more: Any) -> int:
        if self.name == "index.html":
            raise OSError(28, "No space left on device")
        return write(self, text, **more)

    monkeypatch.setattr(Path, "write_text", full)
    assert "no space to write" in refused(*asked)
    assert {path.name: path.read_bytes() for path in (tmp_path / "why").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["why"]


def test_what_cannot_be_is_refused(evil: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = evil
    asked = ("analyse", run, "--data", root, "--out", tmp_path / "why", *CPU)
    assert "name it with --data" in refused("analyse", run)
    assert "is no folder of a run: name a folder for the page with --out" in refused("analyse", run, "--data", root)
    assert "--iou must be above 0 and at most 1, got 2" in refused(*asked, "--iou", 2)
    assert "--score 0.1 is below --min-score 0.2" in refused(*asked, "--score", 0.1, "--min-score", 0.2)
    assert "has no image set 'training'" in refused(*asked, "--image-set", "training")
    assert "nothing.safetensors" in refused("analyse", tmp_path / "nothing.safetensors", "--data", root, "--out", "x")
    assert not (tmp_path / "why").exists()


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_of_many_classes_the_most_confused_are_drawn() -> None:
    counts = torch.zeros(101, 101, dtype=torch.int64).numpy()
    counts[7, 9] = 5
    counts[0, 40] = 3
    counts[50, 50] = 99  # right
    none = counts[0] * 0
    matrix = ConfusionMatrix(counts, none, none)
    assert most_confused(matrix, 3) == [7, 9, 40]
    figure, drawn = confusion_figure(matrix, [f"class {label}" for label in range(1, 101)])
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert drawn == 24
    assert {"class 7", "class 9", "class 40", "missed"} <= set(names)
    assert len(names) == 25
    matplotlib.pyplot.close(figure)


def test_a_window_holds_its_box() -> None:
    assert window([100, 100, 120, 110], (600, 300)) == (10, 55, 210, 155)  # a third of the width, and of the height
    assert window([0, 0, 200, 150], (600, 300)) == (0, 0, 600, 300)
    torch.manual_seed(0)
    for _ in range(200):
        size = (int(torch.randint(1, 400, ())), int(torch.randint(1, 400, ())))
        a, b = torch.rand(2, 2) * torch.tensor(size)
        corners = [*torch.minimum(a, b).tolist(), *torch.maximum(a, b).tolist()]
        left, top, right, bottom = window(corners, size)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert max(left - corners[0], top - corners[1], corners[2] - right, corners[3] - bottom) <= 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3, 2)])
def test_tiny_and_narrow_images_are_drawn(size: tuple[int, int]) -> None:
    image = torch.zeros(3, size[1], size[0], dtype=torch.uint8)
    box = Box([-5.0, 0, 2, 900], 1, 0.5)  # detections may reach over the border
    address, _ = example_picture(image, box, box, [Box([0, 0, 0, 0], 1)], ["x"])
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert max(picture.size) == 320


def test_a_picture_shows_both_boxes() -> None:
    """The detection in the colour of its class, the object in black and white."""
    image = torch.full((3, 200, 200), 120, dtype=torch.uint8)
    around = Box([40, 40, 160, 160], 1, 0.9)
    address, is_part = example_picture(image, around, around, [Box([20, 20, 180, 180], 1)], ["x"])
    picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")
    assert not is_part
    row = [picture.getpixel((x, 160)) for x in range(320)]
    blue = [x for x, (r, g, b) in enumerate(row) if b - r > 60]
    gray = [x for x, pixel in enumerate(row) if max(pixel) < 60 or min(pixel) > 190]
    assert {round(x / 320 * 200 / 10) * 10 for x in blue} == {40, 160}
    assert {round(x / 320 * 200 / 10) * 10 for x in gray} == {20, 180}


def test_every_kind_has_its_words() -> None:
    from ssdlib.cli.analysis_words import _OF, MEANINGS, TITLES

    assert set(TITLES) == set(MEANINGS) == set(_OF) == set(KINDS)

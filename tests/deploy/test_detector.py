"""The detector as a product uses it: images in any form, files that are damaged, classes, and small objects."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ssdlib.data import load_image, sample_root
from ssdlib.deploy import Detector, Found, open_model
from ssdlib.deploy.found import labels_of
from ssdlib.deploy.inputs import files_in, pixels_of
from ssdlib.deploy.tiling import merged, whole_objects, windows
from ssdlib.model import SSD
from ssdlib.zoo.checkpoint import demo_model, save_model

PHOTO = sorted((sample_root() / "JPEGImages").glob("*.jpg"))[0]
EXIF_ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(demo_model())


def photo() -> Image.Image:
    image = Image.open(PHOTO)
    image.load()  # which closes the file
    return image


def same(found: Found, wanted: Found) -> None:
    assert found.names == wanted.names
    assert found.size == wanted.size
    torch.testing.assert_close(found.detection, wanted.detection, atol=1e-3, rtol=1e-4)


# ---- what goes in ----------------------------------------------------------------------------------------------


def test_every_form_of_an_image_gives_the_same(detector: Detector):
    pixels = load_image(PHOTO)
    wanted = detector(PHOTO)
    assert len(wanted) > 0
    array = pixels.permute(1, 2, 0).numpy()
    transparent = np.dstack([array, np.zeros(array.shape[:2], np.uint8)])
    for image in (str(PHOTO), photo(), array, transparent, array.astype(np.float32) / 255, pixels):
        same(detector(image), wanted)
    for batch in ([PHOTO, array], torch.stack([pixels, pixels]), np.stack([array, array])):
        for found in detector(batch):
            same(found, wanted)
    assert detector([]) == []


def test_boxes_are_those_of_the_model_and_lie_in_the_image(detector: Detector):
    (wanted,) = demo_model().predict([load_image(PHOTO)], min_score=0.5)
    found = detector(PHOTO)
    assert torch.equal(found.boxes, wanted["boxes"])
    assert found.size == photo().size
    assert found.names == [demo_model().classes[label - 1] for label in wanted["labels"].tolist()]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_modes_of_pillow(detector: Detector, tmp_path: Path, mode: str):
    image = Image.fromarray(np.full((20, 30), 40000, np.uint16)) if mode == "I;16" else photo().convert(mode)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    image.save(path)
    same(detector(image), detector(path))


def test_palette_with_transparency(tmp_path: Path):
    image = Image.new("P", (4, 3))
    image.putpalette([10, 20, 30] + [0] * 765)
    image.save(tmp_path / "a.png", transparency=0)
    assert pixels_of(tmp_path / "a.png")[:, 0, 0].tolist() == [10, 20, 30]


def test_a_photograph_is_turned_as_its_exif_data_ask(detector: Detector, tmp_path: Path):
    image = photo()
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    same(detector(tmp_path / "turned.png"), detector(image))
    assert detector(tmp_path / "turned.png").size == image.size


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 900), (4000, 3000)])
def test_tiny_and_huge_images(detector: Detector, size: tuple[int, int]):
    found = Detector(detector.model, min_score=0)(Image.new("RGB", size, (200, 10, 10)))
    assert found.size == size
    assert len(found) > 0
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([*size, *size])).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 0, 5), r"\(3, 0, 5\)"),
        (torch.zeros(5, 8, 8), r"\(5, 8, 8\)"),
        (np.zeros((4, 4, 2), np.uint8), r"\(2, 4, 4\)"),
        (torch.full((3, 4, 4), 200.0), "floats in an image must be in 0..1"),
        (torch.full((3, 4, 4), float("nan")), "floats in an image must be in 0..1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "not torch.int64"),
        (17, "not int"),
    ],
)
def test_what_is_no_image(detector: Detector, image: Any, message: str):
    with pytest.raises(ValueError, match=message):
        detector(image)


def test_damaged_files_are_named_and_the_rest_goes_on(detector: Detector, tmp_path: Path):
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_bytes(PHOTO.read_bytes()[:300])
    results = list(detector.each([bad, PHOTO, missing, PHOTO], batch_size=3))
    assert [result.error is None for result in results] == [False, True, False, True]
    assert "bad.jpg" in str(results[0].error)
    assert "missing.jpg" in str(results[2].error)
    same(results[3].found, detector(PHOTO))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bad\.jpg"):
        detector([PHOTO, bad])


def test_no_more_than_a_batch_is_read_ahead(detector: Detector):
    read: list[int] = []

    def images() -> Any:
        for number in range(6):
            read.append(number)
            yield Image.new("RGB", (8, 8))

    results = detector.each(images(), batch_size=2)
    next(results)
    assert read == [0, 1]


def test_files_in(tmp_path: Path):
    for name in ("b.jpg", "a.PNG", "notes.txt", "below/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "[x].jpg").touch()
    (tmp_path / "empty").mkdir()
    names = [path.name for path in files_in([tmp_path])]
    assert names == ["[x].jpg", "a.PNG", "b.jpg"]
    assert [path.name for path in files_in([tmp_path / "**" / "*.jpg"])] == ["[x].jpg", "b.jpg", "c.jpg"]
    assert files_in([tmp_path / "b.jpg", tmp_path]) == [tmp_path / name for name in ("b.jpg", "[x].jpg", "a.PNG")]
    assert files_in([tmp_path / "[x].jpg"]) == [tmp_path / "[x].jpg"]  # a file before a pattern
    assert files_in([tmp_path / "gone.jpg"]) == [tmp_path / "gone.jpg"]  # said when it is read
    with pytest.raises(ValueError, match="no file fits the pattern"):
        files_in([tmp_path / "*.bmp"])
    with pytest.raises(ValueError, match="holds no photographs"):
        files_in([tmp_path / "empty"])


# ---- what comes out --------------------------------------------------------------------------------------------


def test_classes_are_chosen_before_the_best_are(detector: Detector):
    everything = Detector(detector.model, min_score=0.02)(PHOTO)
    wanted = [name for name in everything.names if name != everything.names[0]]
    assert wanted
    found = Detector(detector.model, min_score=0.02, without=[everything.names[0]], top_k=1)(PHOTO)
    assert found.names == wanted[:1]
    found = Detector(detector.model, min_score=0.02, classes=[everything.names[0]])(PHOTO)
    assert set(found.names) == {everything.names[0]}
    with pytest.raises(ValueError, match="no class 'unicorn'; there are ball"):
        Detector(detector.model, classes=["unicorn"])
    assert labels_of(["b", "a"], ["a", "b", "c"]) == {1, 2}


@pytest.mark.parametrize("option", [{"min_score": 1.1}, {"max_overlap": -0.1}, {"top_k": 0}, {"tiles": 3}])
def test_options_out_of_range(option: dict[str, Any]):
    with pytest.raises(ValueError, match="must be in"):
        Detector(demo_model(), **option)


def test_rows(detector: Detector):
    found = Found(torch.tensor([[1.26, 2, 3, 4]]), torch.tensor([2]), torch.tensor([0.123456]), ("a", "b"), (9, 9))
    assert found.rows() == [{"class": "b", "score": 0.1235, "box": [1.3, 2.0, 3.0, 4.0]}]


def test_supervision(detector: Detector, monkeypatch: pytest.MonkeyPatch):
    found = detector(PHOTO)
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ValueError, match="pip install supervision"):
        found.to_supervision()
    fake = types.ModuleType("supervision")
    fake.Detections = lambda **given: given  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", fake)
    given = found.to_supervision()
    assert given["xyxy"].shape == (len(found), 4)
    assert given["class_id"].tolist() == [label - 1 for label in found.labels.tolist()]
    assert given["data"]["class_name"].tolist() == found.names


def test_a_run_a_checkpoint_and_a_network(detector: Detector, tmp_path: Path):
    path = save_model(demo_model(), tmp_path / "model.safetensors")
    for source in (tmp_path, str(path), demo_model()):
        same(Detector(source, device="cpu")(PHOTO), detector(PHOTO))
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        open_model(tmp_path / "gone")
    with pytest.raises(ValueError, match="no published weights 'torchvision:yolo'"):
        open_model("torchvision:yolo")


# ---- small objects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(500, 300), (300, 300), (100, 50), (1001, 777)])
def test_windows_cover_the_image_and_show_each_small_object_whole(size: tuple[int, int]):
    width, height = size
    found = windows(width, height, 300)
    seen = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        seen[top:bottom, left:right] = True
    assert seen.all()
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y = rng.integers(0, width - 40), rng.integers(0, height - 40) if height > 40 else 0
        assert any(a <= x and b <= y and x + 40 <= c and y + 40 <= d for a, b, c, d in found) or height < 40
    with pytest.raises(ValueError, match="windows need"):
        windows(10, 10, 5, 1.0)


def of(*boxes: list[float]) -> dict[str, Tensor]:
    count = len(boxes)
    ones = torch.ones(count, dtype=torch.int64)
    return {"boxes": torch.tensor(boxes), "labels": ones, "scores": torch.linspace(0.9, 0.5, count)}


def test_parts_at_the_edge_of_a_window_are_left_out():
    found = of([50.0, 50, 80, 80], [0.0, 50, 30, 80], [70.0, 50, 100, 80], [50.0, 0, 80, 30])
    kept = whole_objects(found, (100, 0, 200, 100), (200, 300))  # at the top and the right edge of the image
    assert kept["boxes"].tolist() == [[150, 50, 180, 80], [170, 50, 200, 80], [150, 0, 180, 30]]


def test_an_object_that_two_windows_show_is_one():
    both = merged([of([10.0, 10, 50, 50]), of([11.0, 10, 51, 50], [200.0, 10, 240, 50])], 0.45, 200)
    assert both["boxes"].tolist() == [[10, 10, 50, 50], [200, 10, 240, 50]]
    other = of([11.0, 10, 51, 50])
    other["labels"] += 1
    assert len(merged([of([10.0, 10, 50, 50]), other], 0.45, 200)["labels"]) == 2


@pytest.mark.slow
def test_tiles_find_what_is_too_small_for_the_whole_image():
    """A scene in the corner of a large, empty image: its objects are a tenth as large as the network learned them."""
    pixels = load_image(PHOTO)
    canvas = torch.full((3, 8 * pixels.shape[1], 8 * pixels.shape[2]), 128, dtype=torch.uint8)
    canvas[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    wanted = Detector(demo_model())(pixels)
    assert len(Detector(demo_model())(canvas)) < len(wanted)
    tiled = Detector(demo_model(), tiles=max(pixels.shape[1:]))(canvas)
    assert tiled.size == (canvas.shape[2], canvas.shape[1])
    assert set(wanted.names) <= set(tiled.names)


def test_tiles_change_nothing_where_one_window_is_enough(detector: Detector):
    same(Detector(detector.model, tiles=5000)(PHOTO), detector(PHOTO))


def test_damaged_weights_are_an_error_of_the_whole():
    model: SSD = demo_model()
    model.class_head.convolutions[0].bias.data[0] = torch.nan  # type: ignore[index, union-attr]
    with pytest.raises(FloatingPointError, match="not finite"):
        Detector(model)(PHOTO)

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssdlib.data import TOY_CLASSES, VOCDataset, make_toy_voc
from ssdlib.data.synthetic import scenes
from ssdlib.data.synthetic.masks import segmented_scenes
from ssdlib.data.synthetic.scenes import DIFFICULT_BELOW, MIN_VISIBLE, SceneObject, render_masks, render_scene
from ssdlib.data.synthetic.shapes import CLUTTER, OBJECTS, pick_color
from ssdlib.data.synthetic.toy_voc import JPEG_QUALITY, _annotation

SIDES = (96, 200)


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


# ---- scenes ----------------------------------------------------------------------------------------------------


def slow_record(painted, size):
    """Paint whole masks on a canvas with a wide margin, pixel by pixel, and read off boxes, visible parts, owners.

    `painted` lists (mask, left, top, labelled) in the order of painting.
    """
    width, height = size
    owner = {}
    for k, (mask, left, top, _) in enumerate(painted):
        for y, x in zip(*np.nonzero(mask), strict=True):
            owner[left + int(x), top + int(y)] = k
    found = []
    for k, (mask, left, top, labelled) in enumerate(painted):
        if not labelled:
            continue
        pixels = [(left + int(x), top + int(y)) for y, x in zip(*np.nonzero(mask), strict=True)]
        inside = [(x, y) for x, y in pixels if 0 <= x < width and 0 <= y < height]
        xs, ys = [x for x, _ in inside], [y for _, y in inside]
        seen = sum(owner[p] == k for p in inside)
        box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
        found.append((box, seen / len(pixels), len(inside) < len(pixels)))
    number = {k: place for place, k in enumerate(k for k, each in enumerate(painted) if each[3])}
    owners = [[number.get(owner.get((x, y)), -1) for x in range(width)] for y in range(height)]
    return found, owners


def test_boxes_visible_parts_and_masks_match_a_slow_painter(monkeypatch: pytest.MonkeyPatch):
    painted = []
    place = scenes._place

    def spy(canvas, patch, name):
        placed = place(canvas, patch, name)
        if placed:
            painted.append((patch.alpha >= 0.5, patch.left, patch.top, name is not None))
        return placed

    monkeypatch.setattr(scenes, "_place", spy)
    overlaps = truncated = 0
    for seed in range(12):
        painted.clear()
        image, objects, owner = render_masks(np.random.default_rng(seed), SIDES)
        expected, owners = slow_record(painted, image.size)
        assert [(o.box, o.visible, o.truncated) for o in objects] == expected
        assert owner.tolist() == owners
        for o in objects:
            assert o.visible >= MIN_VISIBLE
            assert o.difficult == (o.visible < DIFFICULT_BELOW)
            overlaps += o.visible < 1 and not o.truncated
            truncated += o.truncated
    assert overlaps > 3
    assert truncated > 1


def test_masks_come_with_the_same_scene():
    image, objects = render_scene(np.random.default_rng(3), SIDES)
    again, same, owner = render_masks(np.random.default_rng(3), SIDES)
    assert image.tobytes() == again.tobytes()
    assert objects == same
    assert owner.shape == (image.height, image.width)


@pytest.mark.slow
def test_scenes_vary():
    scenes = [render_scene(np.random.default_rng(seed), SIDES) for seed in range(150)]
    objects = [o for _, found in scenes for o in found]
    assert {o.name for o in objects} == set(TOY_CLASSES)
    assert all(o.visible >= MIN_VISIBLE for o in objects)
    assert len({image.size for image, _ in scenes}) > 50
    assert all(SIDES[0] <= side <= SIDES[1] for image, _ in scenes for side in image.size)
    assert sum(not found for _, found in scenes) > 3
    assert sum(o.difficult for o in objects) > 3
    assert max(len(found) for _, found in scenes) >= 6
    relative = [
        ((o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) / (image.width * image.height)) ** 0.5
        for image, found in scenes
        for o in found
    ]
    assert min(relative) < 0.15
    assert max(relative) > 0.5


@pytest.mark.parametrize("shape", [*OBJECTS.values(), *CLUTTER], ids=lambda shape: shape.__name__)
def test_shapes_stay_in_their_frame_and_in_float32(shape):
    grid = np.linspace(-1.5, 1.5, 121, dtype=np.float32)
    u, v = (np.ascontiguousarray(a) for a in np.meshgrid(grid, grid))
    outside = (np.abs(u) > 1) | (np.abs(v) > 1)
    light = np.array([0.4, -0.5, 0.77], np.float32)
    areas = []
    for seed in range(8):
        distance, colour = shape(u, v, np.random.default_rng(seed), light)
        assert distance.dtype == colour.dtype == np.float32
        assert distance.shape == u.shape
        assert colour.shape == (*u.shape, 3)
        assert np.isfinite(colour[distance <= 0]).all()
        assert colour[distance <= 0].min() >= 0
        assert colour[distance <= 0].max() <= 1
        assert (distance[outside] > 0).all()
        areas.append((distance < 0).mean())
    assert min(areas) > 0.01


def test_colour_does_not_give_the_class_away():
    """Each class shows every hue: the mean colours of one class spread as widely as those of all."""
    grid = np.linspace(-1, 1, 41, dtype=np.float32)
    u, v = (np.ascontiguousarray(a) for a in np.meshgrid(grid, grid))
    light = np.array([0.4, -0.5, 0.77], np.float32)
    means = {}
    for name, shape in OBJECTS.items():
        drawn = [shape(u, v, np.random.default_rng(seed), light) for seed in range(60)]
        means[name] = np.array([colour[distance < 0].mean(axis=0) for distance, colour in drawn])
    spread = np.concatenate(list(means.values())).std(axis=0)
    for name, colours in means.items():
        assert (colours.std(axis=0) > 0.5 * spread).all(), name


def test_second_colour_differs_in_lightness():
    weights = np.array([0.3, 0.59, 0.11])
    rng = np.random.default_rng(0)
    for _ in range(200):
        first = pick_color(rng)
        second = pick_color(rng, first)
        assert abs((first - second) @ weights) > 0.19
        assert 0 <= second.min() <= second.max() <= 1


# ---- the set on disk -------------------------------------------------------------------------------------------


def test_layout_and_reader(tmp_path: Path):
    root = make_toy_voc(tmp_path / "deep" / "toy", train=5, val=2, test=3, seed=3, sides=SIDES, progress=False)
    assert root == tmp_path / "deep" / "toy"
    assert [p.name for p in root.parent.iterdir()] == ["toy"]
    sizes = {name: len(VOCDataset(root, name, TOY_CLASSES)) for name in ("train", "val", "test", "trainval")}
    assert sizes == {"train": 5, "val": 2, "test": 3, "trainval": 7}
    settings = json.loads((root / "toy.json").read_text())
    assert settings["counts"] == {"train": 5, "val": 2, "test": 3}
    assert settings["classes"] == list(TOY_CLASSES) == sorted(TOY_CLASSES)
    for name, split in (("train", 0), ("val", 1), ("test", 2)):
        dataset = VOCDataset(root, name, TOY_CLASSES)
        assert dataset.findings == ()
        for index in range(len(dataset)):
            image, target = dataset[index]
            drawn, objects = render_scene(np.random.default_rng([3, split, index]), SIDES)
            assert target["boxes"].tolist() == [list(o.box) for o in objects]
            assert [TOY_CLASSES[label - 1] for label in target["labels"]] == [o.name for o in objects]
            assert target["difficult"].tolist() == [o.difficult for o in objects]
            drawn.save(file := io.BytesIO(), format="JPEG", quality=JPEG_QUALITY)
            with Image.open(file) as stored:
                assert torch.equal(image, torch.from_numpy(np.array(stored)).permute(2, 0, 1))


def test_marks_are_written():
    found = [
        SceneObject("fish", (0, 3, 20, 30), visible=0.3, truncated=True, difficult=True),
        SceneObject("leaf", (5, 6, 7, 8), visible=1.0, truncated=False, difficult=False),
    ]
    objects = _annotation("a.jpg", (40, 30), found).getroot().findall("object")
    assert [node.findtext("difficult") for node in objects] == ["1", "0"]
    assert [node.findtext("truncated") for node in objects] == ["1", "0"]
    assert [[corner.text for corner in node.find("bndbox")] for node in objects] == [
        ["1", "4", "20", "30"],
        ["6", "7", "7", "8"],
    ]


def test_same_seed_same_bytes(tmp_path: Path):
    options = {"train": 3, "val": 1, "test": 1, "sides": SIDES, "progress": False}
    first, second, other = (
        make_toy_voc(tmp_path / name, seed=seed, **options) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert tree(first) == tree(second)
    assert tree(first) != tree(other)


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path):
    small = tree(make_toy_voc(tmp_path / "a", train=2, val=1, test=0, sides=SIDES, progress=False))
    large = tree(make_toy_voc(tmp_path / "b", train=3, val=2, test=1, sides=SIDES, progress=False))
    pictures = {name for name in small if name.startswith(("JPEGImages", "Annotations"))}
    assert len(pictures) == 6
    assert all(small[name] == large[name] for name in pictures)


def test_splits_differ(tmp_path: Path):
    root = make_toy_voc(tmp_path / "a", train=1, val=1, test=1, sides=SIDES, progress=False)
    assert len({p.read_bytes() for p in (root / "JPEGImages").iterdir()}) == 3


def test_a_folder_is_only_replaced_on_request(tmp_path: Path):
    options = {"val": 0, "test": 0, "sides": SIDES, "progress": False}
    root = make_toy_voc(tmp_path / "toy", train=1, **options)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    make_toy_voc(root, train=1, **options)
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before

    with pytest.raises(FileExistsError, match=r"other parameters: .*'train': 1"):
        make_toy_voc(root, train=2, **options)
    make_toy_voc(root, train=2, overwrite=True, **options)
    assert len(list((root / "JPEGImages").iterdir())) == 2

    (root / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"also holds notes\.txt"):
        make_toy_voc(root, train=1, overwrite=True, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["toy"]


def test_foreign_folders_are_never_replaced(tmp_path: Path):
    foreign = tmp_path / "photos"
    foreign.mkdir()
    make_toy_voc(foreign, train=0, val=0, test=0, progress=False)  # an empty folder may be filled
    other = tmp_path / "mine"
    other.mkdir()
    (other / "precious.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="not a synthetic set"):
            make_toy_voc(other, train=1, progress=False, overwrite=overwrite)
    a_file = tmp_path / "file"
    a_file.write_text("x")
    with pytest.raises(FileExistsError, match="not a synthetic set"):
        make_toy_voc(a_file, train=1, progress=False, overwrite=True)
    assert (other / "precious.jpg").read_bytes() == b"x"


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(self, *args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        make_toy_voc(tmp_path / "toy", train=1, sides=SIDES, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train must be 0 or more, got -1"),
        ({"seed": -5}, "seed must be 0 or more, got -5"),
        ({"sides": (50, 200)}, r"got \(50, 200\)"),
        ({"sides": (300, 200)}, r"got \(300, 200\)"),
    ],
)
def test_bad_parameters(tmp_path: Path, options, message):
    with pytest.raises(ValueError, match=message):
        make_toy_voc(tmp_path / "toy", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("progress", [True, False])
def test_progress_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool):
    make_toy_voc(tmp_path / "toy", train=1, val=0, test=0, sides=SIDES, progress=progress)
    assert ("drawing scenes" in capsys.readouterr().err) == progress


# ---- a class for every pixel ------------------------------------------------------------------------------------


def test_every_pixel_has_the_class_of_its_object():
    images, labels = segmented_scenes(3, 96, seed=5)
    assert (images.shape, images.dtype) == ((3, 3, 96, 96), torch.uint8)
    assert (labels.shape, labels.dtype) == ((3, 96, 96), torch.int64)
    names = [None, *TOY_CLASSES]
    seen = set()
    for i in range(3):
        image, objects, owner = render_masks(np.random.default_rng([5, 96, i]), (96, 96))
        assert np.array_equal(images[i].permute(1, 2, 0).numpy(), np.asarray(image))
        for y, x in [(y, x) for y in range(0, 96, 5) for x in range(0, 96, 5)]:
            k = int(owner[y, x])
            assert names[int(labels[i, y, x])] == (None if k < 0 else objects[k].name)
            seen.add(k)
    assert len(seen) > 2
    assert torch.equal(segmented_scenes(2, 96, seed=5)[1], labels[:2]), "a larger set begins with the smaller one"
    assert segmented_scenes(0)[0].shape == (0, 3, 96, 96)


@pytest.mark.parametrize(("count", "side", "seed"), [(-1, 96, 0), (1, 95, 0), (1, 96, -1)])
def test_segmented_scenes_refuse_what_cannot_be(count: int, side: int, seed: int):
    with pytest.raises(ValueError, match=f"got {side}, {count}, {seed}"):
        segmented_scenes(count, side, seed)

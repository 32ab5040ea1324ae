"""The synthetic data set: scenes of six classes, made from a seed and written in the VOC layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree  # writes only; annotations are read by defusedxml

import numpy as np
from tqdm import tqdm

from ssdlib.data.files import folder_aside
from ssdlib.data.synthetic.scenes import SceneObject, render_scene
from ssdlib.data.synthetic.shapes import OBJECTS

TOY_CLASSES: tuple[str, ...] = tuple(OBJECTS)
GENERATOR_VERSION = 1
JPEG_QUALITY = 88
_SPLITS = ("train", "val", "test")


def make_toy_voc(
    root: str | os.PathLike[str],
    train: int = 1000,
    val: int = 100,
    test: int = 300,
    seed: int = 0,
    sides: tuple[int, int] = (240, 480),
    progress: bool = True,
    overwrite: bool = False,
) -> Path:
    """Write a set of synthetic scenes in the VOC layout and return its folder.

    Image `i` of a split depends on the seed, the split and `i` only, so a larger set begins with the smaller
    one. Objects are balls, crates, donuts, fish, leaves and stars of any colour, among unlabelled clutter. A box
    is the tight extent of the whole object, hidden parts included, clipped to the image; objects of which less
    than 45 % is visible are marked difficult, and none shows less than 20 %. The folder also gets `toy.json`,
    which records the parameters. Sets `train`, `val`, `test` and `trainval` (the first two) are written.

    Args:
        root: folder to make. Written beside it under a temporary name, and moved into place when complete.
        train, val, test: images in each split, 0 or more.
        seed: 0 or more.
        sides: smallest and largest side of an image, in pixels; at least 96.
        progress: show a progress bar.
        overwrite: replace a synthetic set that has other parameters. Nothing else is ever replaced.

    Raises:
        ValueError: a count or the seed is negative, or the sides are out of range.
        FileExistsError: `root` holds something else: a set with other parameters without `overwrite`, or anything
            that is no synthetic set. A folder with the very same set is left as it is.
    """
    root = Path(root)
    counts = {"train": train, "val": val, "test": test}
    parameters = _parameters(counts, seed, sides)
    if _already_made(root, parameters, overwrite):
        return root
    place = root.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with folder_aside(place) as folder:
        complete = folder / "set"
        _write_set(complete, parameters, progress)
        # Asked again, because another process may have made it in the meantime.
        if not _already_made(root, parameters, overwrite):
            if root.exists():
                shutil.rmtree(root)
            os.replace(complete, root)
    return root


def _parameters(counts: dict[str, int], seed: int, sides: tuple[int, int]) -> dict[str, Any]:
    for name, value in {**counts, "seed": seed}.items():
        if value < 0:
            raise ValueError(f"{name} must be 0 or more, got {value}")
    low, high = sides
    if not 96 <= low <= high:
        raise ValueError(f"sides must be (smallest, largest) with 96 <= smallest <= largest, got {sides}")
    return {
        "generator": "ssdlib.data.make_toy_voc",
        "version": GENERATOR_VERSION,
        "counts": counts,
        "seed": seed,
        "sides": [low, high],
        "classes": list(TOY_CLASSES),
    }


def _already_made(root: Path, parameters: dict[str, Any], overwrite: bool) -> bool:
    """True if `root` holds this very set; raise if it holds anything that may not be replaced."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / "toy.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileExistsError(
            f"{root} exists and is not a synthetic set (no toy.json): choose another folder"
        ) from None
    if found == parameters:
        return True
    if not overwrite:
        raise FileExistsError(f"{root} holds a synthetic set with other parameters: {found}; pass overwrite=True")
    others = sorted({path.name for path in root.iterdir()} - {"Annotations", "ImageSets", "JPEGImages", "toy.json"})
    if others:
        raise FileExistsError(f"{root} is not replaced, because it also holds {', '.join(others)}")
    return False


def _write_set(folder: Path, parameters: dict[str, Any], progress: bool) -> None:
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    ids = {s: [f"{s}_{i:05d}" for i in range(parameters["counts"][s])] for s in _SPLITS}
    jobs = [(s, i) for s in _SPLITS for i in range(len(ids[s]))]
    for split, index in tqdm(jobs, desc="drawing scenes", unit="image", disable=not progress):
        rng = np.random.default_rng([parameters["seed"], _SPLITS.index(split), index])
        image, objects = render_scene(rng, tuple(parameters["sides"]))
        name = ids[split][index]
        image.save(folder / "JPEGImages" / f"{name}.jpg", quality=JPEG_QUALITY)
        tree = _annotation(f"{name}.jpg", image.size, objects)
        tree.write(folder / "Annotations" / f"{name}.xml", encoding="utf-8")
    for split, names in {**ids, "trainval": ids["train"] + ids["val"]}.items():
        lines = "".join(f"{name}\n" for name in names)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(lines, encoding="utf-8")
    (folder / "toy.json").write_text(json.dumps(parameters, indent=2) + "\n", encoding="utf-8")


def _annotation(filename: str, size: tuple[int, int], objects: Sequence[SceneObject]) -> ElementTree.ElementTree:
    root = ElementTree.Element("annotation")
    _fill(root, {"folder": "JPEGImages", "filename": filename})
    _fill(ElementTree.SubElement(root, "size"), {"width": size[0], "height": size[1], "depth": 3})
    for item in objects:
        node = ElementTree.SubElement(root, "object")
        _fill(node, {"name": item.name, "truncated": int(item.truncated), "difficult": int(item.difficult)})
        left, top, right, bottom = item.box
        # VOC counts pixels from 1 and names the last pixel inside the box.
        corners = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        _fill(ElementTree.SubElement(node, "bndbox"), corners)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _fill(parent: ElementTree.Element, values: dict[str, Any]) -> None:
    for tag, value in values.items():
        ElementTree.SubElement(parent, tag).text = str(value)

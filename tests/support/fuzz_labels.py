"""Hostile labels of annotation tools: what is converted is sound, and all that is said of it can be printed."""

from __future__ import annotations

import csv
import io
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import fuzzing
from support.coco_folder import CATEGORIES, annotation, image
from support.fuzz_data import picture, sound
from support.fuzzing import can_be_printed, mutated, mutated_bytes, number, refused
from support.voc_folder import object_xml

from ssdlib.data import DataWarning, convert_dataset, make_sheet, open_dataset


def _text(rng: random.Random) -> str:
    return rng.choice([number(rng), number(rng), rng.choice(fuzzing.TEXTS)])


def _name(rng: random.Random) -> str:
    return rng.choice(["1.png", "2.png", "1", "a/1.png", "..\\2.png", rng.choice(fuzzing.TEXTS)])


def _yolo(rng: random.Random) -> dict[str, str]:
    def line() -> str:
        some = [f"{rng.uniform(-0.2, 1.2):.4f}" for _ in range(rng.choice([4, 4, 4, 5, 6, 8]))]
        some[rng.randrange(len(some))] = rng.choice([some[0], _text(rng)])
        return " ".join([rng.choice(["0", "1", _text(rng)]), *some])

    names = rng.choice(
        ["[cat, dog]", "{0: cat, 1: dog}", f"[cat, {json.dumps(_text(rng))}]", "{0: cat, x: dog}", "&a [*a]"]
    )
    settings = f"train: {rng.choice(['images', '../train', json.dumps(_text(rng))])}\nnames: {names}\n"
    return {"1.txt": "\n".join(line() for _ in range(3)), "2.txt": "0 .5 .5 .5 .5", "data.yaml": settings}


def _coco(rng: random.Random) -> dict[str, str]:
    tree: Any = {"images": [image(1), image(2, _name(rng))], "categories": [dict(entry) for entry in CATEGORIES]}
    tree["annotations"] = [annotation(1, 1, 3, [2, 3.5, 10, 20]), annotation(2, 2, 7, [0, 0, 40, 30], crowd=1)]
    for _ in range(rng.choice([1, 2, 4])):
        tree = mutated(rng, tree)
    return {"labels.json": json.dumps(tree)}


def _voc(rng: random.Random) -> dict[str, str]:
    objects = object_xml(rng.choice(["cat", _text(rng)]), *(_text(rng) for _ in range(4))) + object_xml(
        "cat", 1, 1, 9, 9
    )
    size = f"<size><width>{rng.choice(['40', _text(rng)])}</width><height>30</height></size>"
    return {
        "1.xml": f"<annotation><filename>{_name(rng)}</filename>{size}{objects}</annotation>",
        "2.xml": "<annotation/>",
    }


def _labelme(rng: random.Random) -> dict[str, str]:
    kinds = ["rectangle", "polygon", "circle", "mask", "point", "linestrip", _text(rng)]
    tree: Any = {
        "imagePath": _name(rng),
        "imageWidth": 40,
        "imageHeight": 30,
        "shapes": [
            {"label": "cat", "shape_type": kind, "points": [[1, 2], [9.5, 8]], "group_id": rng.choice([None, 1])}
            for kind in rng.sample(kinds, 4)
        ],
    }
    for _ in range(rng.choice([1, 2, 4])):
        tree = mutated(rng, tree)
    good = {"imagePath": "2.png", "shapes": [{"label": "cat", "shape_type": "circle", "points": [[9, 9], [5, 5]]}]}
    return {"1.json": json.dumps(tree), "2.json": json.dumps(good)}


def _cvat(rng: random.Random) -> dict[str, str]:
    def attributes(*keys: str) -> str:
        values = {key: rng.choice([str(rng.randint(-5, 45)), _text(rng)]) for key in keys}
        return " ".join(f'{key}="{value}"' for key, value in values.items())

    shapes = [
        f'<box label="cat" {attributes("xtl", "ytl", "xbr", "ybr", "rotation")}/>',
        f'<ellipse label="cat" {attributes("cx", "cy", "rx", "ry", "rotation")}/>',
        f'<mask label="cat" {attributes("left", "top", "width", "height")}/>',
        f'<polygon label="{_text(rng)}" points="1,2;{_text(rng)},9;9,9"/>',
        '<box label="dog" xtl="1" ytl="1" xbr="9" ybr="9"/>',
    ]
    nodes = f'<image name="{_name(rng)}" {attributes("width", "height")}>{"".join(rng.sample(shapes, 3))}</image>'
    label = f"<meta><labels><label><name>{_text(rng)}</name></label></labels></meta>"
    return {"labels.xml": f'<annotations>{label}{nodes}<image name="2.png">{shapes[-1]}</image></annotations>'}


def _openimages(rng: random.Random) -> dict[str, str]:
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", rng.choice(["IsGroupOf", _text(rng)])])
    for _ in range(3):
        corners = [rng.choice([rng.uniform(-0.2, 1.2), _text(rng)]) for _ in range(4)]
        table.writerow([_name(rng), rng.choice(["/m/1", _text(rng)]), *corners, rng.choice(["0", "1", _text(rng)])])
    words = f"/m/1,{json.dumps(_text(rng))}\n"
    return {"labels.csv": file.getvalue() + "2,cat,0,1,0,1,0\n", "class-descriptions.csv": words}


MAKERS: dict[str, Callable[[random.Random], dict[str, str]]] = {
    "yolo": _yolo,
    "coco": _coco,
    "voc": _voc,
    "labelme": _labelme,
    "cvat": _cvat,
    "openimages": _openimages,
}


def labels(rng: random.Random, folder: Path) -> str:
    """Two images with odd labels in one of the formats, converted to one of the layouts, and shown."""
    source, out = folder / "source", folder / "set"
    source.mkdir()
    for name in ("1.png", "2.png"):
        (source / name).write_bytes(picture())
    name = rng.choice([*MAKERS])
    for file, text in MAKERS[name](rng).items():
        content = text.encode("utf-8", "surrogatepass")
        (source / file).write_bytes(mutated_bytes(rng, content) if rng.random() < 0.2 else content)

    def convert() -> None:
        layout: Any = rng.choice(["coco", "voc"])
        done = convert_dataset(source, out, labels=name, layout=layout, link=rng.random() < 0.5, progress=False)
        can_be_printed(done.text())
        assert len(done.text()) < 100_000
        written, came = done.objects
        assert written == came + sum(done.left_out.values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            dataset = open_dataset(out, "all", done.classes or ["none"])
        sound(dataset)
        assert not dataset.findings
        assert sum(len(dataset.target(i)["labels"]) for i in range(len(dataset))) == came
        can_be_printed(make_sheet(dataset, side=16).page())

    if refused(convert, str(source)):
        assert [path.name for path in folder.iterdir()] == ["source"]  # and nothing half written
        return "refused"
    return "accepted"


AREAS = [fuzzing.Area("labels", labels)]

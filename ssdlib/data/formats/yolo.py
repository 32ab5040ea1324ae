"""YOLO's text labels: for each image a file of lines `class x_centre y_centre width height`, in fractions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ssdlib.data.formats.collecting import (
    Collector,
    ImageFiles,
    LabelledObject,
    Source,
    around,
    files_below,
    fractions,
    refusal,
)
from ssdlib.data.names import check_name, counted, said, shown

NAME_FILES = ("classes.txt", "obj.names", "names.txt", "_darknet.labels", "labels.txt")
_NO_LABELS = {
    *NAME_FILES,
    "readme.txt",
    "readme.roboflow.txt",
    "readme.dataset.txt",
    "train.txt",
    "val.txt",
    "test.txt",
}
_LARGEST = 2**20  # bytes of a data.yaml: some kB hold a thousand classes


def read_yolo(root: Path, images: ImageFiles) -> Source:
    """Read a folder of images and text labels.

    A label file is found as YOLO finds it: with `labels` in place of the last `images` in the path, or beside the
    image. A line of more numbers is a polygon, and the box around it is taken. An image without a label file has no
    objects. Fractions are of the upright image, as programs show it.

    Raises:
        ValueError: the folder does not name its classes, in a `data.yaml` or a `classes.txt`; or such a file is
            damaged.
    """
    names, settings = class_names(root)
    found = Collector("yolo", root)
    found.declare(root, names)
    keypoints = "kpt_shape" in settings
    used = set()
    unlabelled = 0
    sets = _sets(settings, images)
    label_files = set(files_below(root, "*.txt"))
    for image in images.paths:
        labels = next((path for path in _label_paths(image, root) if path in label_files), None)
        image_set = sets.get(image) if sets else _set_of(image, root)
        if labels is None:
            unlabelled += 1
            found.add(image, image, None, [], image_set)
            continue
        used.add(labels)
        try:
            lines = labels.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            found.lose(labels, "unreadable labels", said(error))
            continue
        found.add(labels, image, None, [_object(line, names, keypoints) for line in lines if line.strip()], image_set)
    for labels in sorted(path for path in label_files - used if path.name.lower() not in _NO_LABELS):
        objects = [
            line for line in labels.read_text(encoding="utf-8-sig", errors="replace").splitlines() if line.strip()
        ]
        if not objects or _is_label(objects[0]):
            found.lose(labels, "no image", f"no image for {labels.name}", len(objects))
    if unlabelled:
        found.notes.append(f"{counted(unlabelled, 'image')} without a label file, taken to be without objects")
    return found.finish()


def class_names(root: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The names of the classes, and all entries of data.yaml if there is one.

    Raises:
        ValueError: there are no names, or a file with them is damaged; the message names it.
    """
    for path in sorted(p for ending in ("*.yaml", "*.yml") for p in _near(root, ending)):
        settings = _load_yaml(path)
        names = settings.get("names")
        if isinstance(names, dict) and names:
            if set(names) != set(range(len(names))):
                raise ValueError(
                    f"{path}: names must be numbered from 0 without gaps, got {shown(sorted(map(str, names)))}"
                )
            names = [names[number] for number in range(len(names))]
        if isinstance(names, list) and names:
            return _checked([str(name) for name in names], path), settings
    for name in NAME_FILES:
        for path in sorted(_near(root, name)):
            lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            return _checked([line.strip() for line in lines if line.strip()], path), {}
    raise ValueError(
        f"{root} does not say what its classes are called: it needs a data.yaml with names, or a classes.txt "
        f"with a name in each line, in the order of the numbers"
    )


def _near(root: Path, pattern: str) -> list[Path]:
    """Files in a folder, and in the folders in it."""
    return [path for path in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if path.is_file()]


class _Loader(yaml.SafeLoader):
    """Refuses aliases, by which a small file can stand for an endless one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def _load_yaml(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path} is larger than any list of classes")
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)
    except Exception as error:  # of nearly every kind: the YAML of a damaged file breaks PyYAML's constructors
        raise ValueError(f"{path} is no readable YAML: {said(error)}") from error
    return content if isinstance(content, dict) else {}


def _checked(names: list[str], path: Path) -> tuple[str, ...]:
    for name in names:
        check_name(name, f"{path}: the class")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} names {', '.join(map(shown, twice))} twice")
    return tuple(name.strip() for name in names)


def _label_paths(image: Path, root: Path) -> list[Path]:
    """Where the labels of an image may be."""
    parts = list(image.relative_to(root).with_suffix(".txt").parts)
    places = [image.with_suffix(".txt")]
    if "images" in parts[:-1]:
        last = max(i for i, part in enumerate(parts[:-1]) if part == "images")
        places.insert(0, root.joinpath(*parts[:last], "labels", *parts[last + 1 :]))
    places.append(root / "labels" / parts[-1])
    return places


def _object(line: str, names: tuple[str, ...], keypoints: bool) -> LabelledObject:
    number, *texts = line.split()
    try:
        index = int(number)
        name = names[index] if index >= 0 else names[len(names)]
    except (ValueError, IndexError):
        return LabelledObject("?", refusal("unknown class", f"{shown(number)} is none of 0 to {len(names) - 1}"))
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return LabelledObject(name, refusal("not a number", shown(line)))
    if len(values) == 4 or (keypoints and len(values) > 4):
        x, y, w, h = values[:4]
        return LabelledObject(name, fractions((x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
    if len(values) >= 6 and len(values) % 2 == 0:
        return LabelledObject(name, fractions(around(list(zip(values[::2], values[1::2], strict=True)))))
    return LabelledObject(name, refusal("not a box", f"{len(values)} numbers after the class: {shown(line)}"))


def _is_label(line: str) -> bool:
    """Whether a line looks like a label, so that a text of other use is no loss."""
    try:
        number, *values = line.split()
        return len([float(value) for value in values]) >= 4 and int(number) >= 0
    except ValueError:
        return False


def is_labels(path: Path) -> bool:
    """Whether the first line with something in it is a label."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return _is_label(next((line for line in file if line.strip()), ""))


def _set_of(image: Path, root: Path) -> str | None:
    """The set by the folders: images/train/a.jpg and train/images/a.jpg are of "train"."""
    folders = [part for part in image.relative_to(root).parts[:-1] if part != "images"]
    return folders[0] if len(folders) == 1 else None


def _sets(settings: dict[str, Any], images: ImageFiles) -> dict[Path, str]:
    """The set of each image by the entries train, val and test of data.yaml; empty if they lead nowhere."""
    sets: dict[Path, str] = {}
    for name in ("train", "val", "test"):
        entries = settings.get(name)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, str) or not entry.strip():
                continue
            # Exported files write paths of another machine, or one ".." too many: only what is inside counts.
            parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
            for start in range(len(parts)):
                place = images.root.joinpath(*parts[start:])
                if place.is_dir():
                    sets.update({path: name for path in images.paths if path.is_relative_to(place)})
                    break
                if place.is_file() and place.suffix == ".txt":
                    for line in place.read_text(encoding="utf-8", errors="replace").splitlines():
                        if line.strip():
                            try:
                                sets[images.find(line.strip())] = name
                            except LookupError:
                                continue
                    break
    return sets

"""What a checkpoint says about itself, judged: a file of a stranger is believed in nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ssdlib.coding import Activation
from ssdlib.data.names import check_name, said, shown
from ssdlib.model import ARCHITECTURES
from ssdlib.priors import PriorRecipe


@dataclass(frozen=True)
class Description:
    """All that a checkpoint holds besides the weights.

    Attributes:
        architecture: a name of `ssdlib.model.ARCHITECTURES`.
        recipe: the priors that the weights were trained with.
        activation: how the network's scores are made of its logits; "softmax" where a file of an older version is
            silent.
        classes: names of the objects.
        mean, std: of the three channels, of images in 0..1.
        training: what is known about how the weights came about.
        versions: of the libraries that wrote the file.
    """

    architecture: str
    recipe: PriorRecipe
    activation: Activation
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    training: Mapping[str, Any]
    versions: Mapping[str, Any]


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: if the text is none; the message begins with `where`.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, or lists in lists without end
        raise ValueError(f"{where} is no JSON object: {said(error)}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{where} is no JSON object, but {shown(found)}")
    return found


def described(entries: Mapping[str, Any], where: str) -> Description:
    """Check the entries of a description.

    Raises:
        ValueError: if one is missing or not what it should be; the message begins with `where` and names it.
    """
    missing = {"architecture", "recipe", "classes", "mean", "std"} - entries.keys()
    if missing:
        raise ValueError(f"{where} has a description without {', '.join(sorted(missing))}")
    architecture = entries["architecture"]
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        raise ValueError(f"{where}: no architecture {shown(architecture)}; there are {', '.join(ARCHITECTURES)}")
    recipe = recipe_of(entries["recipe"], f"{where}: recipe")
    activation = entries.get("activation", "softmax")
    if activation not in get_args(Activation):
        known = " or ".join(get_args(Activation))
        raise ValueError(f"{where}: activation must be {known}, got {shown(activation)}")
    notes = {name: entries.get(name, {}) for name in ("training", "versions")}
    for name, value in notes.items():
        if not isinstance(value, dict):
            raise ValueError(f"{where}: {name} must be an object, got {shown(value)}")
    return Description(
        architecture=architecture,
        recipe=recipe,
        activation=activation,
        classes=class_names(entries["classes"], where),
        mean=_channels(entries["mean"], -1000, where, "mean"),
        std=_channels(entries["std"], 1e-4, where, "std"),
        **notes,
    )


def recipe_of(entries: Any, where: str) -> PriorRecipe:
    """The recipe that JSON describes as `PriorRecipe.to_dict` does.

    Raises:
        ValueError: if a field is missing, unknown, of the wrong type or out of range; the message begins with `where`
            and names it.
    """
    if not isinstance(entries, dict):
        raise ValueError(f"{where} must be an object, got {shown(entries)}")
    known = {field.name: field for field in fields(PriorRecipe)}
    unknown = [name for name in entries if name not in known]
    missing = [n for n, f in known.items() if n not in entries and f.default is MISSING]
    if unknown or missing:
        what = f"there is no field {shown(unknown[0])}" if unknown else f"the field {missing[0]} is missing"
        raise ValueError(f"{where}: {what}; a recipe has {', '.join(known)}")
    for name in ("map_sizes", "scales", "ratios", "steps"):
        value = entries.get(name)
        if not isinstance(value, list | tuple) and not (name == "steps" and value is None):
            raise ValueError(f"{where}: {name} must be a list, got {shown(value)}")
    for k, cell in enumerate(entries["ratios"]):
        if not isinstance(cell, list | tuple):
            raise ValueError(f"{where}: ratios[{k}] must be a list, got {shown(cell)}")
    if isinstance(entries["name"], str):
        check_name(entries["name"], f"{where}: the name")
    try:
        return PriorRecipe.from_dict(entries)
    except ValueError as error:
        raise ValueError(f"{where}: {said(error)}") from error


def read_recipe(path: str | Path) -> PriorRecipe:
    """The recipe of priors in a JSON file, as `ssd priors fit --out` writes it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no recipe; the message names the file and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no recipe of priors at {path}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no JSON object: {error}") from error
    return recipe_of(parse_json(text, str(path)), str(path))


def class_names(names: Any, where: str) -> tuple[str, ...]:
    """Check the names of classes: at least one, all different, and fit to be shown on a screen.

    Raises:
        ValueError: if they are not; the message begins with `where`.
    """
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f"{where}: classes must be a list of names, got {shown(names)}")
    seen = set()
    for name in names:
        if check_name(name, f"{where}: classes: the name") in seen:
            raise ValueError(f"{where}: classes: the name {name!r} is there twice")
        seen.add(name)
    return tuple(names)


def _channels(values: Any, lowest: float, where: str, name: str) -> tuple[float, ...]:
    """Three finite numbers, from `lowest` to 1000: those of images in 0..1 are far inside."""
    if (
        not isinstance(values, list)
        or len(values) != 3
        or not all(is_number(v) and lowest <= v <= 1000 for v in values)
    ):
        raise ValueError(f"{where}: {name} must be three numbers from {lowest} to 1000, got {shown(values)}")
    return tuple(map(float, values))


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a finite number, which true and false are not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max

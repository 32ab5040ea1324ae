"""Configuration: everything that decides a training run, besides the data; read from texts and from older runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, get_type_hints

from ssdlib.data.names import shown
from ssdlib.data.transforms import Augmentation
from ssdlib.training import Hyperparameters
from ssdlib.zoo.description import is_number

GRAPH_MODES = ("reduce-overhead", "max-autotune")  # of torch.compile, with CUDA graphs
COMPILE_MODES = ("default", *GRAPH_MODES, "max-autotune-no-cudagraphs")

# Fields that are no more, and what they mean today: the number format was a switch.
OLD_VALUES = {"bfloat16": ("precision", {False: "float32", True: "bfloat16"})}
# Names that fields had in runs and checkpoints made before.
RENAMED = {"bias_rate": "bias_lr_multiplier", "clip_norm": "max_grad_norm", "average": "ema_decay"}
RENAMED_AUGMENTATION = {"colour": "color"}


@dataclass(frozen=True)
class TrainConfig(Hyperparameters):
    """Everything that decides a training run, besides the data: the hyperparameters, and the following.

    Attributes:
        architecture: a name of `ssdlib.model.ARCHITECTURES`.
        augmentation: how the images are varied; None shows them as they are.
        augment_on: where that is done: "loader", by the processes that load the images, or "device", for a whole batch
            by the device that trains; for a GPU that waits for its images. The images are the same up to rounding.
        pretrained: start the backbone from torchvision's weights for ImageNet.
        freeze: parts of the network that do not learn, separated by commas: "early", the first layers of the backbone
            (`ssdlib.zoo.transfer.early_parts`); "backbone"; or names such as "backbone.stages.0,backbone.stages.1".
        patience: end the run after so many validations without a better mAP; 0 never ends it early.
        compile: let torch.compile make the network faster, and on a GPU the loss; it needs a C++ compiler, and some
            minutes at the start. The update stays as it is: beside the hundreds of calls for a gradient it is some 20,
            4 of them the fused optimizer's, which leaves out a step that is not finite by itself.
        compile_mode: of torch.compile: "default"; "reduce-overhead", which on a GPU records what it compiles as CUDA
            graphs, so that a step of small kernels does not wait for the host to launch them one by one;
            "max-autotune", which tries several kernels for each operation, too; or "max-autotune-no-cudagraphs". We had
            no GPU to make a run with CUDA graphs; a CPU has none, and compiles as by default.

    Raises:
        ValueError: if a value is out of its range; the message names it.
    """

    architecture: str = "ssd_tiny"
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    augment_on: str = "loader"
    pretrained: bool = False
    freeze: str = ""
    patience: int = 0
    compile: bool = False
    compile_mode: str = "default"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment_on not in ("loader", "device"):
            raise ValueError(f"augment_on must be 'loader' or 'device', got {self.augment_on!r}")
        if self.compile_mode not in COMPILE_MODES:
            raise ValueError(f"compile_mode must be one of {', '.join(COMPILE_MODES)}, got {self.compile_mode!r}")
        if self.patience < 0:
            raise ValueError(f"patience must be at least 0, got {self.patience}")


def with_settings(config: TrainConfig, settings: Iterable[str]) -> TrainConfig:
    """Change a configuration by texts, as `ssd train --set` does.

    Args:
        config: where to start from.
        settings: "name=value", such as "momentum=0.95", "max_grad_norm=none", "augmentation.crop=0.5" or
            "augmentation=none".

    Raises:
        ValueError: if there is no such name, or the value is of another type or out of range.
    """
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting: write name=value, such as momentum=0.95")
        name, value = name.strip(), value.strip()
        group, _, inner = name.rpartition(".")
        if group == "augmentation":
            augmentation = config.augmentation or Augmentation()
            config = replace(config, augmentation=_changed(augmentation, inner, value, name))
        else:
            config = _changed(config, name, value, name)
    return config


def config_from_dict(recorded: Mapping[str, Any]) -> TrainConfig:
    """The configuration of which config.json holds `dataclasses.asdict`; fields that it lacks get their defaults.

    Raises:
        ValueError: if it has a field that there is not, or a value of another type or out of range.
    """
    values = _checked_values(TrainConfig, recorded, RENAMED, "")
    inner = values.get("augmentation")
    if inner is not None:
        if not isinstance(inner, Mapping):
            raise ValueError(f"augmentation takes a mapping or none, got {shown(inner)}")
        values["augmentation"] = Augmentation(
            **_checked_values(Augmentation, inner, RENAMED_AUGMENTATION, "augmentation.")
        )
    return TrainConfig(**values)


def _checked_values(kind: type, recorded: Mapping[str, Any], renamed: Mapping[str, str], group: str) -> dict[str, Any]:
    """The fields of a configuration by their names of today, after a look at the type of each value."""
    kinds, values = get_type_hints(kind), {}
    for old, value in recorded.items():
        name = renamed.get(old, old)
        if kind is TrainConfig and old in OLD_VALUES and isinstance(value, bool):
            name, meanings = OLD_VALUES[old]
            value = meanings[value]
        if name not in kinds:
            raise ValueError(f"this configuration is of another version of ssdlib: it has {group}{shown(old)}")
        if not _fits(value, kinds[name]):
            raise ValueError(f"{group}{name} takes {_WANTED[kinds[name]]}, got {shown(value)}")
        values[name] = value
    return values


_WANTED = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    float | None: "a number or none",
}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of the type of a field; a whole number is a number, and true is none."""
    if kind not in _WANTED:
        return True  # an augmentation, whose fields are looked at one by one
    if kind is str or kind is bool:
        return isinstance(value, kind)
    if value is None:
        return kind == float | None
    return is_number(value) and (kind is not int or type(value) is int)


def differences(ours: TrainConfig, theirs: TrainConfig) -> list[str]:
    """The fields in which two configurations differ, as "name=theirs, not ours"."""
    pairs = ((f.name, getattr(ours, f.name), getattr(theirs, f.name)) for f in fields(ours))
    return [f"{name}={recorded!r}, not {asked!r}" for name, asked, recorded in pairs if asked != recorded]


def _changed(config: Any, name: str, text: str, shown: str) -> Any:
    """The configuration with one field read from a text."""
    kinds = get_type_hints(type(config))
    if name not in kinds:
        known = ", ".join(kinds)
        raise ValueError(f"there is no setting {shown!r}; there are {known}")
    kind, default = kinds[name], getattr(config, name)
    if is_dataclass(default) or name == "augmentation":
        if text.lower() != "none":
            raise ValueError(f"{shown} takes none; its parts are set one by one, such as {shown}.crop=0.5")
        return replace(config, **{name: None})
    try:
        return replace(config, **{name: _parsed(text, kind)})
    except _WrongType as error:
        raise ValueError(f"{shown} takes {error}, got {text!r}") from None


class _WrongType(Exception):
    """A text that is no value of the field's type; the message says what would be."""


def _parsed(text: str, kind: Any) -> Any:
    """A value of one of the types of the fields: str, bool, int, float, float | None."""
    if kind is str:
        return text
    if kind is bool:
        known = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if text.lower() not in known:
            raise _WrongType("true or false")
        return known[text.lower()]
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise _WrongType("a whole number") from None
    optional = kind is not float
    if optional and text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _WrongType("a number or none" if optional else "a number")
    return value

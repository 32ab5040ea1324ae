"""Configurations: which are valid, changes by texts, and records of them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest

from ssdlib.data.transforms import Augmentation
from ssdlib.engine.config import TrainConfig, config_from_dict, differences, with_settings
from ssdlib.engine.presets import PRESETS


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be 'sgd' or 'adamw', got 'adam'"),
        ({"schedule": "linear"}, "schedule must be 'cosine' or 'steps', got 'linear'"),
        ({"iterations": 0}, "at least 1, got 0"),
        ({"batch_size": -2}, "at least 1, got .*-2"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup": -0.1}, "warmup"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0"),
        ({"bias_lr_multiplier": 0.0}, "bias_lr_multiplier must be above 0"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay must be at least 0, got -0.0001"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0, or none, got 0.0"),
        ({"seed": -1}, "seed must be at least 0 and below 2\\*\\*64, got -1"),
    ],
)
def test_wrong_configurations(wrong: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**wrong)


# ---- changes by texts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("momentum=0.5", {"momentum": 0.5}),
        (" momentum = 5e-1 ", {"momentum": 0.5}),
        ("iterations=7", {"iterations": 7}),
        ("max_grad_norm=none", {"max_grad_norm": None}),
        ("max_grad_norm=2", {"max_grad_norm": 2.0}),
        ("precision=float16", {"precision": "float16"}),
        ("compile=Yes", {"compile": True}),
        ("pretrained=off", {"pretrained": False}),
        ("architecture=ssd300_vgg16", {"architecture": "ssd300_vgg16"}),
        ("augmentation=None", {"augmentation": None}),
        ("augmentation.crop=0.5", {"augmentation": Augmentation(crop=0.5)}),
        ("augmentation.color=false", {"augmentation": Augmentation(color=False)}),
    ],
)
def test_settings(text: str, changed: dict[str, Any]):
    config = with_settings(TrainConfig(), [text])
    assert config == replace(TrainConfig(), **changed)
    assert all(type(getattr(config, name)) is type(value) for name, value in changed.items())


def test_later_settings_win_and_an_augmentation_can_be_switched_on():
    config = with_settings(TrainConfig(augmentation=None), ["momentum=0.5", "momentum=0.7", "augmentation.crop=1"])
    assert config == TrainConfig(momentum=0.7, augmentation=Augmentation(crop=1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("momentum", "'momentum' is no setting: write name=value"),
        ("speed=3", "there is no setting 'speed'; there are iterations, batch_size, .*, compile"),
        ("augmentation.speed=3", "there is no setting 'augmentation.speed'; there are color, "),
        ("augmentation.crop.x=3", "there is no setting 'augmentation.crop.x'"),
        ("momentum=high", "momentum takes a number, got 'high'"),
        ("momentum=none", "momentum takes a number, got 'none'"),
        ("learning_rate=nan", "learning_rate takes a number, got 'nan'"),
        ("max_grad_norm=high", "max_grad_norm takes a number or none, got 'high'"),
        ("iterations=1.5", "iterations takes a whole number, got '1.5'"),
        ("compile=2", "compile takes true or false, got '2'"),
        ("compile_mode=graphs", "compile_mode must be one of default, reduce-overhead, .*, got 'graphs'"),
        ("precision=int8", "precision must be one of float32, bfloat16, float16, auto, got 'int8'"),
        ("patience=-1", "patience must be at least 0, got -1"),
        ("augmentation.color=blue", "augmentation.color takes true or false, got 'blue'"),
        ("augmentation=strong", "augmentation takes none; its parts are set one by one, such as augmentation.crop"),
        ("optimizer=adam", "optimizer must be 'sgd' or 'adamw', got 'adam'"),
        ("__class__=3", "there is no setting '__class__'"),
    ],
)
def test_wrong_settings(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        with_settings(TrainConfig(), [text])


def test_every_field_can_be_set():
    for field in fields(TrainConfig):
        if field.name != "augmentation":
            value = getattr(PRESETS["paper"], field.name)
            assert getattr(with_settings(TrainConfig(), [f"{field.name}={value}"]), field.name) == value


# ---- records of configurations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [*PRESETS.values(), TrainConfig(augmentation=None)])
def test_a_configuration_survives_json(config: TrainConfig):
    assert config_from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize(("recorded", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_the_number_format_was_a_switch(recorded: bool, precision: str):
    assert config_from_dict({"bfloat16": recorded, "seed": 3}) == TrainConfig(precision=precision, seed=3)
    with pytest.raises(ValueError, match=r"another version of ssdlib: .*'bfloat16'"):
        config_from_dict({"bfloat16": "yes"})


def test_records_of_other_versions():
    assert config_from_dict({"iterations": 7}) == TrainConfig(iterations=7)
    with pytest.raises(ValueError, match=r"another version of ssdlib: .*'speed'"):
        config_from_dict({"speed": 7})
    with pytest.raises(ValueError, match=r"another version of ssdlib: .*'speed'"):
        config_from_dict({"augmentation": {"speed": 7}})


def test_differences():
    assert differences(TrainConfig(), TrainConfig()) == []
    assert differences(TrainConfig(seed=1, momentum=0.5), TrainConfig()) == ["momentum=0.9, not 0.5", "seed=0, not 1"]

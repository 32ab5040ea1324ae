"""Presets: what they are made of, and the notes about them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from support.repository import ROOT

from ssdlib.data.transforms import Augmentation
from ssdlib.engine.config import config_from_dict, differences
from ssdlib.engine.presets import PRESET_NOTES, PRESETS
from ssdlib.model import ARCHITECTURES
from ssdlib.zoo.imagenet import CLASSIFIERS


def test_every_preset_can_be_built_and_is_described():
    assert PRESET_NOTES.keys() == PRESETS.keys() >= {"tiny", "tiny_few", "paper", "paper512", "scratch"}
    for name, config in PRESETS.items():
        assert config.architecture in ARCHITECTURES
        assert not config.pretrained or config.architecture in CLASSIFIERS
        note = PRESET_NOTES[name]
        assert f"--preset {name} " in note.command
        # a figure is measured, and then its record is there; or it is cited, and then it says so
        record = re.search(r"ssdlib/engine/records/\w+\.json", note.score)
        assert (ROOT / record[0]).is_file() if record else "not measured with ssdlib" in note.score


def test_the_presets_of_the_paper():
    """Liu et al. (2016), section 3.1."""
    for name, architecture in (("paper", "ssd300_vgg16"), ("paper512", "ssd512_vgg16")):
        config = PRESETS[name]
        assert (config.architecture, config.pretrained, config.augmentation) == (architecture, True, Augmentation())
        assert (config.iterations, config.batch_size, config.learning_rate) == (120_000, 32, 1e-3)
        assert (config.optimizer, config.momentum, config.weight_decay, config.bias_lr_multiplier) == (
            "sgd",
            0.9,
            5e-4,
            2.0,
        )
        assert (config.schedule, config.warmup, config.max_grad_norm, config.ema_decay) == ("steps", 0.0, None, 0.0)


def test_the_small_presets_are_those_of_the_recorded_runs():
    for name, record in (("tiny", "tiny_toy"), ("tiny_few", "tiny_bccd")):
        recorded = json.loads((ROOT / "ssdlib" / "engine" / "records" / f"{record}.json").read_text())["config"]
        assert differences(PRESETS[name], replace(config_from_dict(recorded), precision="float32", seed=0)) == []

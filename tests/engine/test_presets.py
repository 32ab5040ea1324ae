"""Presets: what they are made of, and the notes about them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from support.repository import ROOT

from ssdlib.data.transforms import Augmentation
from ssdlib.engine.config import config_from_dict, differences
from ssdlib.engine.presets import PRESET_NOTES, PRESETS, advised_iterations, schedule_advice, tunes
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
    for name, record in (("tiny", "tiny_toy"), ("tiny_few", "tiny_bccd"), ("finetune", "finetune_cards")):
        recorded = json.loads((ROOT / "ssdlib" / "engine" / "records" / f"{record}.json").read_text())["config"]
        assert differences(PRESETS[name], replace(config_from_dict(recorded), precision="float32", seed=0)) == []


@pytest.mark.parametrize(
    ("preset", "images", "tuned", "expected"),
    [
        ("paper", 16_551, False, 120_000),  # the run that the rule goes through
        ("paper", 4 * 16_551, False, 240_000),
        ("paper", 118_287, False, 320_000),  # COCO
        ("tiny_few", 292, False, 2400),
        ("tiny", 2600, False, 7200),
        ("finetune", 296, True, 1000),
        ("finetune", 74, True, 500),
        ("paper", 1, False, 930),
    ],
)
def test_iterations_by_the_size_of_the_data_set(preset: str, images: int, tuned: bool, expected: int):
    assert advised_iterations(PRESETS[preset], images, tuned=tuned) == expected


def test_which_presets_tune_what_a_classifier_has_learned():
    assert [name for name, config in PRESETS.items() if tunes(config)] == ["finetune"]


def test_a_batch_twice_as_large_needs_half_the_iterations():
    assert advised_iterations(replace(PRESETS["paper"], batch_size=64), 16_551) == 60_000
    assert advised_iterations(replace(PRESETS["paper"], batch_size=10**9), 5) == 1


def test_advice_is_given_where_the_schedule_is_far_from_the_rule():
    advice = schedule_advice(PRESETS["paper"], 300)
    assert advice.startswith("advice: 120,000 iterations show each of the 300 images 12,800 times;"), advice
    assert advice.endswith("about 16,000 (--iterations 16000)")
    assert "each of the 16,551 images 0.039 times" in schedule_advice(replace(PRESETS["paper"], iterations=20), 16_551)
    for name, images in (("paper", 16_551), ("paper", 4000), ("tiny", 2600), ("tiny_few", 100)):
        assert schedule_advice(PRESETS[name], images) == ""

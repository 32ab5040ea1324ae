"""benchmarks/ablation.py: one budget for all, what differs is the variant alone, and what is done stays done."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from support.repository import ROOT

from ssdlib.data import open_dataset, sample_root
from ssdlib.engine import PRESETS
from ssdlib.engine.config import differences
from ssdlib.family.ablation import VARIANTS


@pytest.fixture
def ablation(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("ablation")


def test_configurations_differ_in_the_augmentation_of_the_variant_alone(ablation: Any):
    base = ablation.configuration(VARIANTS["ssd"], 5, 1, "float32")
    assert differences(base, PRESETS["tiny"]) == ["iterations=2300, not 5", "seed=0, not 1"]
    for name, variant in VARIANTS.items():
        config = ablation.configuration(variant, 5, 1, "float32")
        assert replace(config, augmentation=base.augmentation) == base
        assert (config.augmentation != base.augmentation) == (name in ("crops", "few_crops", "zoom_out", "no_flips"))


def test_all_seeds_of_ssd_come_first_and_then_the_first_seed_of_the_others(ablation: Any):
    names = ["ssd", "l1", "giou"]
    order = [(0, "ssd"), (1, "ssd"), (2, "ssd"), (0, "l1"), (0, "giou"), (1, "l1"), (1, "giou"), (2, "l1"), (2, "giou")]
    assert ablation.missing({"runs": []}, 3, names) == order
    done = {"runs": [{"seed": 0, "variant": "l1"}, {"seed": 1, "variant": "ssd"}]}
    assert ablation.missing(done, 3, names) == [each for each in order if each not in ((0, "l1"), (1, "ssd"))]
    assert ablation.missing({"runs": []}, 2, ["l1"]) == [(0, "l1"), (1, "l1")]


def test_all_see_the_same_images_and_few_see_the_first(ablation: Any, monkeypatch: pytest.MonkeyPatch):
    images = open_dataset(sample_root(), "trainval")
    every = {tuple(images.target(i)["labels"].tolist()) for i in range(len(images))}
    first = {tuple(images.target(i)["labels"].tolist()) for i in range(3)}
    assert every > first
    seen: dict[str, list[Any]] = {}
    loop = ablation.training_loop
    for name, images_of in (("ssd", 0), ("square", 0), ("few", 3)):

        def watched(state: Any, stream: Any, *rest: Any, name: str = name, **options: Any) -> Any:
            def kept() -> Any:
                for batch in stream:
                    seen.setdefault(name, []).append((batch[0].sum().item(), [t["labels"].tolist() for t in batch[1]]))
                    yield batch

            return loop(state, kept(), *rest, **options)

        monkeypatch.setattr(ablation, "training_loop", watched)
        variant = replace(VARIANTS[name], images=images_of)
        config = replace(ablation.configuration(variant, 3, 4, "float32"), batch_size=2)
        model = ablation.fit(variant, images, config)
        assert not model.training
        monkeypatch.undo()
    assert seen["ssd"][:3] == seen["square"][:3] != seen["few"][:3]
    assert {tuple(labels) for _, batch in seen["few"] for labels in batch} <= first
    assert {len(batch) for _, batch in seen["few"]} == {2}


def test_a_run_is_trained_and_tested(ablation: Any):
    images = open_dataset(sample_root(), "trainval")
    few = open_dataset(sample_root(), "test")
    few._images = few._images[:3]
    config = replace(ablation.configuration(VARIANTS["focal"], 1, 0, "bfloat16"), batch_size=2)
    found = ablation.measure(VARIANTS["focal"], config, images, few)
    assert 0 <= found["mAP"] <= 1
    assert found["AP"].keys() <= set(images.classes)
    assert [*found["coco"]] == [*ablation.COCO]
    assert found["processor_seconds"] > 0
    json.dumps(found, allow_nan=False)
    known = ablation.about(VARIANTS["square"], 3)
    weights = 2 * 9 * (96 + 128 + 96 + 64 + 64) * (3 + 4) + 5 * 2 * (3 + 4)  # of the heads
    backbone = sum(p.numel() for p in VARIANTS["square"].build(3).backbone.parameters())
    assert (known["priors"], known["parameters"]) == (2728, backbone + weights)


def test_what_was_recorded_is_not_done_again(ablation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def measured(variant: Any, config: Any, images: Any, test: Any) -> dict[str, Any]:
        asked.append((config.seed, variant.title))
        return {"mAP": 0.5, "processor_seconds": 1.0}

    monkeypatch.setattr(ablation, "measure", measured)
    monkeypatch.setattr(ablation, "VARIANTS", {name: VARIANTS[name] for name in ("ssd", "l1")})
    options = {"name": "some", "steps": 2, "seeds": 2, "only": [], "precision": "float32", "results": tmp_path}
    ablation.main(sample_root(), runs=1, **options)
    ablation.main(sample_root(), runs=0, **options)
    assert len(asked) == len(set(asked)) == 4
    path = tmp_path / "some.json"
    record = json.loads(path.read_text())
    assert [(run["seed"], run["variant"]) for run in record["runs"]] == [(0, "ssd"), (1, "ssd"), (0, "l1"), (1, "l1")]
    assert record["variants"]["l1"]["box_loss"] == "l1"
    with pytest.raises(ValueError, match=r"is of steps 2, not 3: give another --name"):
        ablation.main(sample_root(), runs=0, **{**options, "steps": 3})
    with pytest.raises(typer.BadParameter, match="no variant 'third'; there are ssd, l1"):
        ablation.main(sample_root(), runs=0, **{**options, "only": ["third"]})
    path.write_text(json.dumps({**record, "config": {**record["config"], "learning_rate": 0.5}}))
    with pytest.raises(ValueError, match=r"is of learning_rate=0.5, not 0.002: give another"):
        ablation.main(sample_root(), runs=0, **options)
    path.write_text(json.dumps(record))
    monkeypatch.setitem(ablation.VARIANTS, "l1", replace(VARIANTS["l1"], threshold=0.7))
    with pytest.raises(ValueError, match="has the variant 'l1' as it was: give another --name, or remove its runs"):
        ablation.main(sample_root(), runs=0, **options)
    monkeypatch.setattr(ablation, "VARIANTS", {"many": replace(VARIANTS["ssd"], images=torch.iinfo(torch.int32).max)})
    with pytest.raises(typer.BadParameter, match="training images in"):
        ablation.main(sample_root(), runs=0, **options)
    assert len(asked) == 4

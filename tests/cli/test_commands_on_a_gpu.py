"""The commands with --device cuda:0, on a pretended GPU: what they write is that of a CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.pretended_gpu import pretended_gpu
from typer.testing import CliRunner

from ssdlib.cli import app
from ssdlib.data import sample_root
from ssdlib.zoo.checkpoint import demo_model, save_model

SAMPLE = str(sample_root())


def done(*command: str) -> str:
    """What a command says on a machine with a GPU."""
    with pretended_gpu():
        result = CliRunner().invoke(app, [*command, "--device", "cuda:0"])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_model(demo_model(), tmp_path_factory.mktemp("demo") / "demo.safetensors"))


def test_a_run_and_what_becomes_of_it(tmp_path: Path):
    run, options = tmp_path / "run", ["--set", "iterations=2", "--set", "batch_size=2", "--workers", "0"]
    done("train", "--data", SAMPLE, "--out", str(run), "--image-set", "train", "--val-set", "val", *options)
    config = json.loads((run / "config.json").read_text())["config"]
    assert (config["precision"], config["memory_format"]) == ("bfloat16", "channels_last")  # what a GPU of today has
    with torch.device("cpu"):
        exported = CliRunner().invoke(app, ["export", str(run), "--out", str(tmp_path / "m.pt2")])
    assert exported.exit_code == 0, exported.output


def test_the_figures_are_those_of_a_cpu(demo: str, tmp_path: Path):
    command = ["evaluate", demo, "--data", SAMPLE, "--image-set", "val", "--workers", "0", "--json"]
    assert CliRunner().invoke(app, [*command, str(tmp_path / "cpu.json"), "--device", "cpu"]).exit_code == 0
    done(*command, str(tmp_path / "gpu.json"))
    cpu, gpu = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("cpu", "gpu"))
    assert cpu["mAP"] > 0.5
    assert gpu["mAP"] == pytest.approx(cpu["mAP"], abs=1e-4)


def test_detection_and_analysis(demo: str, tmp_path: Path):
    photo = str(next(Path(SAMPLE).rglob("*.jpg")))
    for more in ([], ["--tiles", "200"]):
        assert done("detect", demo, photo, "--out", str(tmp_path / f"found{len(more)}.png"), *more)
    done("analyse", demo, "--data", SAMPLE, "--image-set", "val", "--workers", "0", "--out", str(tmp_path / "page"))
    assert any((tmp_path / "page").iterdir())

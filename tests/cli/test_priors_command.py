"""`ssd priors fit` on drawn scenes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from ssdlib.cli import app
from ssdlib.data import VOCDataset, sample_root
from ssdlib.data.prior_fit import best_overlaps
from ssdlib.model import TINY, ssd_tiny
from ssdlib.priors import PriorRecipe

RUNNER = CliRunner()


def test_coverage_is_shown_and_the_recipe_and_picture_written(tmp_path: Path) -> None:
    out, figure = tmp_path / "priors.json", tmp_path / "new" / "priors.png"
    found = RUNNER.invoke(
        app,
        [
            *("priors", "fit", "--data", str(sample_root()), "--image-set", "test", "--check-set", "test"),
            *("--out", str(out), "--figure", str(figure)),
        ],
    )
    assert found.exit_code == 0, found.output
    recipe = PriorRecipe.from_dict(json.loads(out.read_text()))
    assert recipe.name == "tiny-256-recall"
    assert ssd_tiny(3, recipe=recipe).priors.shape == (TINY.num_priors, 4)
    with Image.open(figure) as picture:
        assert picture.size[0] > 500
    dataset = VOCDataset(sample_root(), "test")
    boxes = torch.cat([t["boxes"] / torch.tensor([i.shape[2], i.shape[1]] * 2) for i, t in dataset])
    lines = found.output.splitlines()
    assert lines[0].split()[:3] == ["test:", str(len(boxes)), "objects,"]
    shares = [float((best_overlaps(boxes, each) >= 0.5).float().mean()) for each in (TINY, recipe)]
    assert lines[1].split()[:3] == ["all", *(f"{share:.3f}" for share in shares)]
    assert shares[1] >= shares[0]
    assert [line for line in lines if line.startswith("all")] == [lines[1]] * 2  # of the other set, which is the same


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", str(sample_root() / "Annotations" / "priors.json")], "choose another folder"),
        (["--figure", "."], "is a folder"),
        (["--image-set", "none"], "none"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str) -> None:
    found = RUNNER.invoke(app, ["priors", "fit", "--data", str(sample_root()), "--image-set", "test", *arguments])
    assert found.exit_code == 2
    assert message in " ".join(found.output.split())

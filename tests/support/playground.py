"""The playground's network in PyTorch, on the parts of ssdlib, and its scripts in Node: for comparing the two."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from playground_page import arithmetic
from torch import Tensor, nn

from ssdlib.model import SSD
from ssdlib.priors import PriorRecipe

RATIOS: dict[int, tuple[float, ...]] = {1: (1.0,), 3: (1.0, 0.7, 1.4), 5: (1.0, 0.7, 1.4, 0.5, 2.0)}
MAPS = {"both": (0, 1), "fine": (0,), "coarse": (1,)}


def run_node(script: str, folder: Path, scripts: str | None = None, **given: Any) -> Any:
    """What a script prints as JSON; it sees all that the playground (or `scripts`) computes, and what is `given`."""
    scripts = arithmetic() if scripts is None else scripts
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node to run the page's scripts with")
    names = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    program = folder / "program.mjs"
    program.write_text(
        f"{scripts}\n{names}const print = (value) => process.stdout.write(JSON.stringify(value, (_, entry) =>\n"
        f"  ArrayBuffer.isView(entry) ? Array.from(entry) : entry));\n{script}",
        encoding="utf-8",
    )
    done = subprocess.run([node, str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


class Trunk(nn.Module):
    """Three convolutions with pooling and one with stride 2: the maps of the playground."""

    def __init__(self, channels: list[int], maps: tuple[int, ...]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, padding=1, stride=1 if n < 3 else 2)
            for n, (inputs, outputs) in enumerate(itertools.pairwise(channels))
        )
        self.maps = maps
        self.out_channels = [channels[3 + map_] for map_ in maps]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images[:, :1]  # three equal channels: the scenes are gray
        for convolution in self.convolutions[:3]:
            x = nn.functional.max_pool2d(nn.functional.relu(convolution(x)), 2)
        both = [x, nn.functional.relu(self.convolutions[3](x))]
        return [both[map_] for map_ in self.maps]


def torch_network(layers: list[dict[str, Any]], settings: dict[str, Any]) -> SSD:
    """The network of a Trainer with these settings and these weights (`layers` as JavaScript has them)."""
    maps = MAPS[settings["maps"]]
    scales = [(0.28, 0.45)[map_] for map_ in maps]
    recipe = PriorRecipe(
        name="playground",
        image_size=48,
        map_sizes=tuple((6, 3)[map_] for map_ in maps),
        scales=(*scales, 1.0),
        ratios=(RATIOS[settings["priors"]],) * len(maps),
    )
    channels = [1] + [layer["outputs"] for layer in layers[:4]]
    network = SSD(Trunk(channels, maps), recipe, 4, mean=[0.5] * 3, std=[0.25] * 3).double()
    with torch.no_grad():
        for layer, module in zip(layers, modules(network), strict=True):
            module.weight.copy_(torch.tensor(layer["weight"]).view_as(module.weight))
            module.bias.copy_(torch.tensor(layer["bias"]))  # type: ignore[union-attr]
    return network


def modules(network: SSD) -> list[nn.Conv2d]:
    """Its convolutions in the order of the playground: trunk, then offsets and scores of each map."""
    heads = zip(network.offset_head.convolutions, network.class_head.convolutions, strict=True)  # type: ignore[arg-type]
    return [*network.backbone.convolutions, *(head for pair in heads for head in pair)]  # type: ignore[misc,list-item]


def scene_tensors(scenes: list[dict[str, Any]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Scenes as JavaScript has them, as a batch (N, 3, 48, 48) in double precision and its targets."""
    images = torch.tensor([scene["pixels"] for scene in scenes], dtype=torch.float64).view(-1, 1, 48, 48)
    targets = [{"boxes": torch.tensor(s["boxes"]).reshape(-1, 4), "labels": torch.tensor(s["labels"])} for s in scenes]
    return images.expand(-1, 3, -1, -1), targets

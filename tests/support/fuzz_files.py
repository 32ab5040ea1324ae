"""Hostile checkpoints, states and configurations of runs."""

from __future__ import annotations

import json
import random
import struct
import tempfile
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from support import fuzzing
from support.fuzzing import mutated, mutated_bytes, refused
from torch import Tensor, nn

from ssdlib.engine import run_folder
from ssdlib.engine.config import TrainConfig
from ssdlib.model import build_model
from ssdlib.training import TrainState
from ssdlib.zoo.checkpoint import load_model, save_model


@cache
def _checkpoint() -> tuple[dict[str, Any], bytes]:
    """The head, and the numbers, of a checkpoint of the small network."""
    with tempfile.TemporaryDirectory() as folder:
        path = save_model(
            build_model("ssd_tiny", classes=["cat", "dog"]), Path(folder) / "model.safetensors", half=True
        )
        content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def checkpoints(rng: random.Random, folder: Path) -> str:
    """A checkpoint whose head says something else: most often its description, at times the list of its tensors."""
    head, numbers = _checkpoint()
    head = dict(head)
    description: Any = json.loads(head["__metadata__"]["ssdlib"])
    kind = rng.randrange(10)
    if kind < 7:
        for _ in range(rng.choice([1, 1, 2])):
            description = mutated(rng, description)
        text = json.dumps(description)
        if rng.random() < 0.05:
            text = mutated_bytes(rng, text.encode()).decode("latin-1")
        head["__metadata__"] = {"ssdlib": text}
    elif kind == 7:
        head = mutated(rng, head)
    packed = json.dumps(head).encode("utf-8", "surrogatepass")
    content = struct.pack("<Q", len(packed)) + packed + numbers
    if kind >= 8:
        content = mutated_bytes(rng, content)
    path = folder / "stranger.safetensors"
    path.write_bytes(content)

    def load() -> None:
        model = load_model(path)
        assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values() if tensor.is_floating_point())
        with torch.no_grad():
            offsets, logits = model(torch.zeros(1, 3, model.recipe.image_size, model.recipe.image_size))
        assert offsets.shape[1] == logits.shape[1] == len(model.priors)
        fuzzing.can_be_printed("".join(model.classes))

    return "refused" if refused(load, path) else "accepted"


def _state() -> TrainState:
    """A run of a network of four numbers, that has done one step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    state = TrainState.start(model, TrainConfig(iterations=5000))
    model(torch.ones(1, 3)).sum().backward()
    state.optimizer.step()
    state.schedule.step()
    state.step = 1
    return state


def state(rng: random.Random, folder: Path) -> str:
    """The state of a run in which something is another: its tensors, its numbers, or the bytes of the file.

    Most have the right checksum, as those have that are made on purpose.
    """
    path = folder / run_folder.STATE
    (folder / run_folder.CONFIG).write_text(json.dumps(_entries()))
    run_folder.save_state(folder, _state(), run_folder.Progress())
    if rng.random() < 0.7:
        saved = _changed(rng, torch.load(path, weights_only=True))
        if isinstance(saved, dict) and rng.random() < 0.9:
            saved.pop("checksum", None)
            with suppress(Exception):  # nothing that has a checksum
                saved["checksum"] = run_folder.checksum(saved)
        torch.save(saved, path)
    else:
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
    resumed = _state()

    def resume() -> None:
        run_folder.load_state(folder, resumed)
        resumed.optimizer.zero_grad()
        resumed.model(torch.ones(1, 3)).sum().backward()
        resumed.optimizer.step()
        resumed.schedule.step()
        assert type(resumed.step) is int
        for module in (resumed.model, resumed.average):
            assert all(torch.isfinite(tensor).all() for tensor in module.state_dict().values())
            assert module.weight.shape == (1, 3)

    return "refused" if refused(resume, path) else "accepted"


def _changed(rng: random.Random, tree: Any) -> Any:
    """A copy with one entry, somewhere, changed; tensors get other shapes, types or numbers."""
    if isinstance(tree, Tensor):
        kind = rng.randrange(6)
        if kind == 0:
            return torch.zeros([rng.choice([0, 1, 2, 50]) for _ in range(rng.randrange(4))])
        if kind == 1:
            return tree.to(rng.choice([torch.float64, torch.int64, torch.float16, torch.complex64, torch.bool]))
        if kind == 2:
            return tree * rng.choice([float("nan"), float("inf"), 0])
        if kind == 3:
            return tree[None].expand(2, *tree.shape)
        return rng.choice([tree.tolist(), tree.clone().requires_grad_(tree.is_floating_point()), tree.flatten()[:0]])
    if isinstance(tree, dict) and tree and rng.random() < 0.93:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {name: entry for name, entry in tree.items() if name != key}
        return {**tree, key: _changed(rng, tree[key])}
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        place = rng.randrange(len(tree))
        return [*tree[:place], _changed(rng, tree[place]), *tree[place + 1 :]]
    return fuzzing.value(rng)


@cache
def _entries() -> dict[str, Any]:
    return {
        "config": asdict(TrainConfig(iterations=5000)),
        "classes": ["cat"],
        "images": 3,
        "fingerprint": "0" * 16,
        "data": ["a"],
    }


def config(rng: random.Random, folder: Path) -> str:
    """A config.json in which something is another."""
    tree = mutated(rng, _entries())
    for _ in range(rng.choice([0, 0, 1, 3])):
        tree = mutated(rng, tree)
    content = json.dumps(tree).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        content = mutated_bytes(rng, content)
    path = folder / run_folder.CONFIG
    path.write_bytes(content)

    def read() -> None:
        found, entries = run_folder.recorded_config(folder)
        assert isinstance(found, TrainConfig)
        assert isinstance(entries, dict)
        assert type(found.iterations) is int
        assert type(found.architecture) is str

    return "refused" if refused(read, path) else "accepted"


AREAS = [
    fuzzing.Area("checkpoints", checkpoints, few=40),
    fuzzing.Area("state", state, few=60),
    fuzzing.Area("config", config),
]

"""Two and four processes on one machine, joined by gloo: the same run as that of one, and every image exactly once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import Images, empty_item, log_of, quick, sample_images
from torch import Tensor, nn

from ssdlib.data.transforms import Augmentation
from ssdlib.engine import processes, train
from ssdlib.engine.inference import detect_dataset
from ssdlib.engine.processes import (
    all_reduce_sum,
    gather,
    process_group,
    rank,
    shared,
    with_shared_statistics,
    world_size,
)
from ssdlib.model import ARCHITECTURES, SSD
from ssdlib.priors import PriorRecipe
from ssdlib.zoo.checkpoint import demo_model, load_model

RECIPE = PriorRecipe("two-maps", 32, (4, 2), (0.2, 0.5, 0.9), ((1.0, 2.0, 0.5), (1.0, 2.0, 0.5)))
CONFIG = quick(
    architecture="two_maps",
    iterations=6,
    batch_size=4,
    optimizer="sgd",
    learning_rate=0.02,
    max_grad_norm=1.0,
    ema_decay=0.5,
    bias_lr_multiplier=2.0,
    augmentation=Augmentation(),
)


class TwoMaps(nn.Module):
    """A backbone whose maps of an image do not depend on the other images of the batch: GroupNorm, not BatchNorm."""

    out_channels = (8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.GroupNorm(2, 8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.first(x)
        return [first, self.second(first)]


def two_maps(num_classes: int, **options: Any) -> SSD:
    return SSD(TwoMaps(), num_classes=num_classes, architecture="two_maps", **{"recipe": RECIPE, **options})


def images() -> Images:
    """Seven images, of which the third has no object: one of the two processes meets an empty target."""
    sample = sample_images()
    return Images([*sample.items[:2], empty_item(), *sample.items[3:]], sample.classes)


def first_to_make(path: Path) -> bool:
    """Whether a file was not there yet; then it is, after a while."""
    if path.exists():
        return False
    time.sleep(0.5)
    path.touch(exist_ok=False)
    return True


def stop_in_the_third(_model: SSD, line: dict[str, float]) -> dict[str, float]:
    if line["epoch"] == 3:
        raise InterruptedError
    return {}


def kill_in_the_third(_model: SSD, line: dict[str, float]) -> dict[str, float]:
    if line["epoch"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


def work_of_four(out: Path) -> None:
    """What each of four processes does, until it is killed."""
    ARCHITECTURES["two_maps"] = two_maps
    train(CONFIG, images(), out / "four", progress=False)
    train(CONFIG, images(), out / "killed", progress=False, save_every=2, after_epoch=kill_in_the_third)


def work(out: Path) -> dict[str, Any]:
    """What each process does; run by `python test_processes.py OUT`, too."""
    ARCHITECTURES["two_maps"] = two_maps
    train(CONFIG, images(), out / "run", progress=False, save_every=2)
    with suppress(InterruptedError):
        train(CONFIG, images(), out / "stopped", progress=False, save_every=2, after_epoch=stop_in_the_third)
    train(CONFIG, images(), out / "stopped", progress=False, resume=True)
    went_on: list[float] = []
    if (out / "elastic").exists():

        def note(_model: SSD, line: dict[str, float]) -> dict[str, float]:
            went_on.append(line["epoch"])
            return {}

        train(CONFIG, images(), out / "elastic", progress=False, resume=True, after_epoch=note)
    made = processes.in_turn(lambda: first_to_make(out / "once"))
    with suppress(ZeroDivisionError):
        processes.in_turn(lambda: 1 / 0)  # in each of them: nobody waits for one that failed
    detections, targets = detect_dataset(demo_model(), images(), batch_size=2, progress=False, min_score=0.5)
    return {
        "rank": rank(),
        "made": made,
        "went_on": went_on,
        "world_size": world_size(),
        "total": all_reduce_sum(torch.tensor([1.0, rank()])).tolist(),
        "gathered": [gather([10 * i for i in processes.share_of(n)], n) for n in (0, 1, 5)],
        "found": [[round(x, 2) for x in found["boxes"].flatten().tolist()] for found in detections],
        "objects": [len(target["labels"]) for target in targets],
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("alone")
    try:
        return out, work(out)
    finally:
        ARCHITECTURES.pop("two_maps", None)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Folders of the runs of four processes and of two, and what each of the two did."""
    out = tmp_path_factory.mktemp("together")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error::UserWarning:ssdlib", __file__, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out, [json.loads((out / f"{i}.json").read_text()) for i in range(2)]


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(
    alone: tuple[Path, Any], together: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
):
    one, two = log_of(alone[0] / "run"), log_of(together[0] / "run")
    assert log_of(together[0] / "stopped") == two
    assert len(two) == len(one) == 6  # one batch of 4 of the 7 images makes an epoch; rank 0 alone wrote
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert one[0]["localization"] != pytest.approx(one[-1]["localization"], rel=1e-2)  # something was learned
    monkeypatch.setitem(ARCHITECTURES, "two_maps", two_maps)
    a, b = (load_model(folder / "run" / "model.safetensors").state_dict() for folder in (alone[0], together[0]))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)
    assert sorted(p.name for p in (together[0] / "run").iterdir()) == ["config.json", "log.jsonl", "model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["four processes", "four, killed, and two that go on"])
def test_four_processes_make_the_run_of_one_also_when_two_end_it(
    run: str, alone: tuple[Path, Any], together: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
):
    folder = together[0] / ("four" if run == "four processes" else "elastic")
    killed = together[0] / "killed"
    assert [two["went_on"] for two in together[1]] == [[3, 4, 5, 6]] * 2
    assert [line["step"] for line in log_of(killed)][:2] == [1, 2]
    assert (killed / "state.pt").exists()
    assert not (killed / "model.safetensors").exists()
    one, other = log_of(alone[0] / "run"), log_of(folder)
    assert [line["step"] for line in other] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(other, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    monkeypatch.setitem(ARCHITECTURES, "two_maps", two_maps)
    a, b = (load_model(path / "model.safetensors").state_dict() for path in (alone[0] / "run", folder))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_every_image_is_detected_once_in_every_process(alone: tuple[Path, Any], together: tuple[Path, Any]):
    one = alone[1]
    assert len(one["found"]) == 7
    assert one["objects"][2] == 0
    assert any(not boxes for boxes in one["found"])  # also an image without detections
    assert any(one["found"])
    for two in together[1]:
        assert two["objects"] == one["objects"]
        assert [len(boxes) for boxes in two["found"]] == [len(boxes) for boxes in one["found"]]
        for ours, theirs in zip(two["found"], one["found"], strict=True):
            assert ours == pytest.approx(theirs, abs=0.05)


@pytest.mark.slow
def test_the_processes_know_each_other(together: tuple[Path, Any]):
    assert [(two["rank"], two["world_size"]) for two in together[1]] == [(0, 2), (1, 2)]
    assert [two["made"] for two in together[1]] == [True, False]
    for two in together[1]:
        assert two["total"] == [2.0, 1.0]
        assert two["gathered"] == [[], [0], [0, 10, 20, 30, 40]]


def test_a_process_alone():
    with process_group(torch.device("cpu")) as device:
        assert (device.type, rank(), world_size()) == ("cpu", 0, 1)
        value, network = torch.ones(2), nn.BatchNorm2d(3)
        assert all_reduce_sum(value) is value
        assert shared(network, device) is with_shared_statistics(network, device) is network
        assert gather([1, 2], 2) == [1, 2]
        processes.barrier()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"WORLD_SIZE": "9", "RANK": "8", "LOCAL_RANK": "8", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with (
        pytest.raises(ValueError, match="process 8 of this machine has no GPU of its own, there are 8: lower --nproc"),
        process_group(torch.device("cuda")),
    ):
        pass


def work_of_two(out: Path) -> None:
    result = work(out)
    (out / f"{result['rank']}.json").write_text(json.dumps(result))


def joined(count: int, task: Callable[[Path], None], out: Path) -> int:
    """Do a task in processes as torchrun would start them, but forked: PyTorch is imported once. The worst status."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    children = []
    for number in range(count):
        children.append(os.fork())
        if children[-1] == 0:
            os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(number)
            try:
                with process_group(torch.device("cpu")):
                    task(out)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    return max(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) for child in children)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    if joined(4, work_of_four, folder) != signal.SIGKILL:
        sys.exit("the four were not killed")
    shutil.copytree(folder / "killed", folder / "elastic")
    sys.exit(joined(2, work_of_two, folder))

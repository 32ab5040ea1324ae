"""Runs that are stopped: killed at any moment, or by Ctrl-C, they go on and end as if nothing had happened."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import Images, log_of, quick, same_weights, sample_images
from torch import Tensor

from ssdlib import training
from ssdlib.data import files
from ssdlib.data.transforms import Augmentation
from ssdlib.engine import loading, run_folder, train
from ssdlib.engine import run as engine_run
from ssdlib.engine.config import TrainConfig
from ssdlib.zoo.checkpoint import load_model

# 7 images in batches of 2 make epochs of 3 steps; states are saved after steps 2, 4 (in an epoch's middle) and 6 (at
# its end).
CONFIG = quick(
    iterations=8, seed=1, ema_decay=0.9, augmentation=Augmentation(), optimizer="sgd", bias_lr_multiplier=2.0
)
FILES = ["config.json", "log.jsonl", "model.safetensors"]


def run(out: Path, dataset: Images, **options: Any) -> torch.nn.Module:
    return train(CONFIG, dataset, out, progress=False, save_every=2, **options)


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images()


@pytest.fixture(scope="module")
def whole(sample: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(out, sample)
    return out


def assert_same_run(out: Path, whole: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert log_of(out) == log_of(whole)
    ours, theirs = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)  # bit for bit


# ---- SIGKILL ---------------------------------------------------------------------------------------------------


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(module: Any, name: str, number: int, action: Callable[..., None] = die) -> None:
    """Do something at a certain call of a function, before it."""
    calls, real = 0, getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            action(*args, **kwargs)
        return real(*args, **kwargs)

    setattr(module, name, counted)


def half_a_state(state: Any, path: Path) -> None:
    whole = io.BytesIO()
    torch.save(state, whole)
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    die()


def half_a_line(out: Path, line: dict[str, Any]) -> None:
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line)[:20])
    die()


MOMENTS: dict[str, Callable[[], None]] = {
    "before anything is written": lambda: at_call(files.os, "replace", 1),
    "in the first step": lambda: at_call(training, "update_average", 1),
    "before the first state": lambda: at_call(run_folder, "save_state", 1),
    "in the middle of the first state": lambda: at_call(run_folder.torch, "save", 1, half_a_state),
    "in the middle of an epoch": lambda: at_call(training, "train_step", 6),
    "in the middle of a line of the log": lambda: at_call(run_folder, "add_to_log", 2, half_a_line),
    "in the middle of the third state": lambda: at_call(run_folder.torch, "save", 3, half_a_state),
    "between the third state and its place": lambda: at_call(files.os, "replace", 4),
    "between an epoch's last step and its line": lambda: at_call(run_folder, "add_to_log", 2),
    "when only the model is missing": lambda: at_call(engine_run, "save_model", 1),
    "in the middle of the last state": lambda: at_call(run_folder.torch, "save", 4, half_a_state),
    "between the model and its place": lambda: at_call(files.os, "replace", 6),
    "when the model is there and the state still is": lambda: at_call(run_folder, "end", 1),
}


def killed(prepare: Callable[[], None], work: Callable[[], Any]) -> None:
    """Do the work in a copy of this process, which kills itself on the way."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            work()
        finally:
            os._exit(1)  # only if it came to its end alive
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on(moment: str, sample: Images, whole: Path, tmp_path: Path):
    out = tmp_path / "run"
    killed(MOMENTS[moment], lambda: run(out, sample))
    run(out, sample, resume=True)
    assert_same_run(out, whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_run_that_is_killed_again_and_again(sample: Images, whole: Path, tmp_path: Path):
    for number in (1, 3, 4, 4):
        killed(
            lambda number=number: at_call(training, "train_step", number), lambda: run(tmp_path, sample, resume=True)
        )
    run(tmp_path, sample, resume=True)
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_resumed_run_does_not_load_what_it_has_seen(sample: Images, tmp_path: Path):
    killed(lambda: at_call(training, "train_step", 6), lambda: run(tmp_path, sample))  # in the second epoch
    seen: list[int] = []

    class Counting(Images):
        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
            seen.append(index)
            return super().__getitem__(index)

    run(tmp_path, Counting(sample.items, sample.classes), resume=True)
    batches = loading.Batches(7, 2, CONFIG.seed)
    batches.order.epoch = 1
    assert seen[:4] == batches.images(1) + batches.images(2)
    assert len(seen) == 4 * 2  # steps 5 to 8


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c():
    """Python's own handling, which a process that was started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_step_and_saves_the_state(
    number: signal.Signals, sample: Images, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usual = signal.getsignal(number)
    monkeypatch.setattr(training, "update_average", training.update_average)  # undone at the end
    at_call(training, "update_average", 5, lambda *_: os.kill(os.getpid(), number))
    with pytest.raises(KeyboardInterrupt, match="stopped after step 5; --resume goes on from there"):
        run(tmp_path, sample)
    assert signal.getsignal(number) is usual
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 5
    run(tmp_path, sample, resume=True)
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("question", [1, 2, 3])
def test_a_stop_between_two_questions_is_no_stop_without_a_state(
    question: int, sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whenever the signal comes, the step that the message names is the one that was saved."""

    @contextmanager
    def asked_before(single_process: bool) -> Iterator[Callable[[], bool]]:
        asked = itertools.count(1)
        yield lambda: next(asked) >= question

    monkeypatch.setattr(run_folder, "stop_requests", asked_before)
    with pytest.raises(KeyboardInterrupt) as stopped:
        run(tmp_path, sample)
    step = torch.load(tmp_path / "state.pt", weights_only=True)["step"]
    assert str(stopped.value) == f"stopped after step {step}; --resume goes on from there"


def test_a_model_that_finds_no_space_can_be_saved_later(
    sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The state of the last step is there, though no state was due."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space to write the model")

    with monkeypatch.context() as patch:
        patch.setattr(engine_run, "save_model", full)
        with pytest.raises(OSError, match="no space to write the model"):
            train(CONFIG, sample, tmp_path, progress=False)
    monkeypatch.setattr(training, "train_step", lambda *_: pytest.fail("trained again"))
    train(CONFIG, sample, tmp_path, progress=False, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_a_second_ctrl_c_stops_at_once():
    with run_folder.stop_requests(True) as stop_requested:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop_requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with run_folder.stop_requests(True) as stop_requested:
        assert not stop_requested()


def test_among_several_processes_ctrl_c_works_as_usual(ctrl_c: None):
    with run_folder.stop_requests(False), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


# ---- what cannot go on -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "dataset", "message"),
    [
        ({"learning_rate": 0.5}, {}, "learning_rate=0.001, not 0.5"),
        ({"seed": 2, "iterations": 9}, {}, "iterations=8, not 9; seed=1, not 2"),
        ({}, {"classes": list("abcdef")}, r"classes \['ball', .*\], not \['a', 'b'"),
        ({}, {"count": 5}, "number of images 7, not 5; list of images"),
        ({}, {"ids": list("abcdefg")}, "list of images"),
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_another_run_is_refused(
    config: dict[str, Any],
    dataset: dict[str, Any],
    message: str,
    done: bool,
    sample: Images,
    whole: Path,
    tmp_path: Path,
):
    for name in FILES if done else FILES[:2]:
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = Images(sample.items[: dataset.get("count", 7)], dataset.get("classes", sample.classes))
    if "ids" in dataset:
        other.ids = dataset["ids"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=f"is another one and cannot go on: it has .*{message}"):
        train(replace(CONFIG, **config), other, tmp_path, progress=False, resume=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_log_that_is_no_text(tmp_path: Path):
    (tmp_path / "log.jsonl").write_bytes(b'{"epoch": 1}\n{"epoch": \xff}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl is no log of a run: .*0xff"):
        run_folder.cut_log(tmp_path, 1)


def test_a_finished_run_is_left_alone(sample: Images, whole: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    monkeypatch.setattr(training, "train_step", lambda *_: pytest.fail("trained again"))
    model = run(whole, sample, resume=True)
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert same_weights(model, load_model(whole / "model.safetensors"))


def test_a_run_that_never_began_begins(sample: Images, whole: Path, tmp_path: Path):
    run(tmp_path / "new", sample, resume=True)
    assert_same_run(tmp_path / "new", whole)


@pytest.mark.parametrize("resume", [True, False])
def test_files_of_nobody_knows_which_run(resume: bool, sample: Images, tmp_path: Path):
    (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(FileExistsError, match=r"holds log\.jsonl, but no config\.json"):
        run(tmp_path, sample, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


class Hostile:
    def __reduce__(self) -> Any:
        return pytest.fail, ("a program in a state was run",)


OTHER_STATES: dict[str, tuple[Any, str]] = {
    "a program": ({"progress": Hostile()}, "damaged, or no state at all"),
    "a list": ([1, 2], "no state at all"),
    "of an older version": ({"place": {"step": 2, "epoch": 0, "batch": 2}, "parts": {}}, "another version of ssdlib"),
    "of a newer version": ({"format": 99, "step": 2}, "another version of ssdlib"),
    "no parts": ({"step": 2}, "not the entries of a state"),
}


@pytest.mark.parametrize("kind", ["no file of torch", *OTHER_STATES])
def test_a_state_that_is_none(kind: str, sample: Images, whole: Path, tmp_path: Path):
    for name in FILES[:2]:
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    saved, message = OTHER_STATES.get(kind, (None, "damaged, or no state at all"))
    if saved is None:
        (tmp_path / "state.pt").write_text("hello")
    else:
        torch.save(saved, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=rf"state\.pt is no state that this run can go on from: .*{message}"):
        run(tmp_path, sample, resume=True)


def test_recorded_config(whole: Path, tmp_path: Path):
    config, entries = run_folder.recorded_config(whole)
    assert config == CONFIG
    assert isinstance(config, TrainConfig)
    assert entries["images"] == 7
    with pytest.raises(FileNotFoundError):
        run_folder.recorded_config(tmp_path)


def test_a_configuration_of_before(whole: Path, tmp_path: Path):
    """Fields had other names, and one folder of data was no list."""
    entries = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    values = entries["config"]
    for new, old in {"bias_lr_multiplier": "bias_rate", "max_grad_norm": "clip_norm", "ema_decay": "average"}.items():
        values[old] = values.pop(new)
    values["augmentation"]["colour"] = values["augmentation"].pop("color")
    del values["augment_on"]
    (tmp_path / "config.json").write_text(json.dumps({**entries, "data": "photos"}), encoding="utf-8")
    config, found = run_folder.recorded_config(tmp_path)
    assert config == CONFIG
    assert found["data"] == ["photos"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": [1]}, "no entry config"),
        ({"config": {"speed": 7}}, "another version of ssdlib: it has 'speed'"),
        ({"config": {"a" * 9999: 7}}, "another version of ssdlib: it has 'a{199}[.]{3}$"),
        ({"config": {"iterations": "9"}}, "iterations takes a whole number, got '9'"),
        ({"config": {"iterations": True}}, "iterations takes a whole number, got True"),
        ({"config": {"iterations": 1.5}}, "iterations takes a whole number"),
        ({"config": {"learning_rate": [1]}}, "learning_rate takes a number"),
        ({"config": {"learning_rate": float("nan")}}, "learning_rate takes a number"),
        ({"config": {"learning_rate": 10**400}}, "learning_rate takes a number"),
        ({"config": {"max_grad_norm": "none"}}, "max_grad_norm takes a number or none"),
        ({"config": {"architecture": {"a": 1}}}, "architecture takes a text"),
        ({"config": {"pretrained": 1}}, "pretrained takes true or false"),
        ({"config": {"seed": -1}}, "seed must be at least 0"),
        ({"config": {"augmentation": "all"}}, "augmentation takes a mapping"),
        ({"config": {"augmentation": {"crop": None}}}, r"augmentation\.crop takes a number"),
        ({"config": {"augmentation": {"crop": -1}}}, "augmentation: crop must be"),
        ({"config": {"augmentation": {"swirl": 1}}}, r"another version of ssdlib: it has augmentation\.'swirl'"),
        ({"classes": "abcdef"}, "classes must be a list of names, got 'abcdef'"),
        ({"classes": ["cat", "cat"]}, "classes: the name 'cat' is there twice"),
        ({"images": 0}, "images must be a whole number above 0, got 0"),
        ({"fingerprint": 7}, "fingerprint must be a text"),
        ({"data": []}, "data must be a list of folders"),
        ({"data": [3]}, "data must be a list of folders"),
        ({"image_set": None}, "image_set must be a text"),
        ({"weights": 3}, "weights must be a text or null"),
        ({"val_every": 0}, "val_every must be a whole number above 0"),
        ({"tensorboard": "yes"}, "tensorboard must be true or false"),
    ],
)
def test_a_config_json_that_cannot_be(change: dict[str, Any], message: str, whole: Path, tmp_path: Path):
    entries = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    if isinstance(change.get("config"), dict):
        change = {"config": {**entries["config"], **change["config"]}}
    (tmp_path / "config.json").write_text(json.dumps({**entries, **change}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"config\.json.*{message}"):
        run_folder.recorded_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"config": ' * 50_000])
def test_a_config_json_that_is_none(content: bytes, tmp_path: Path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is no JSON object"):
        run_folder.recorded_config(tmp_path)

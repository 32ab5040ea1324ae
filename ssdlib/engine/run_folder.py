"""Runs: the folder of a training run, its log, and the state from which a run that was stopped goes on.

config.json says what the run is, log.jsonl how it went, state.pt where it stands, best.safetensors holds the weights
that did best on the validation images; model.safetensors is the result, and then the state is gone. All but the log are
written aside and moved into place, and a line that was written only in half is cut off the log: a run that is killed at
any moment can be resumed.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from ssdlib.data.files import replaced, write_text
from ssdlib.data.names import said, shown
from ssdlib.engine.config import TrainConfig, config_from_dict, differences
from ssdlib.engine.processes import from_first, rank
from ssdlib.engine.state_check import (
    SCALER,
    checked_numbers,
    checked_optimizer,
    checked_random,
    checked_scaler,
    checked_step,
    checked_tensors,
    checksum,
)
from ssdlib.training import TrainState
from ssdlib.zoo import checkpoint
from ssdlib.zoo.description import class_names, parse_json, recipe_of
from ssdlib.zoo.torch_file import read_torch_file

CONFIG, LOG, STATE = "config.json", "log.jsonl", "state.pt"
MODEL, BEST = checkpoint.LAST, checkpoint.BEST
FORMAT = 4  # of STATE
ENTRIES = {"format", "step", "progress", "model", "average", "optimizer", "scaler", "random", "checksum"}
MEANS = ("localization", "confidence", "gradient_norm")
SUMMED = ("began", "steps", "images", "waiting", "skipped", *MEANS)
SCORE = ("mAP", "step", "since")


@dataclass
class Progress:
    """What the log of a run says of the steps that go on, the time that the run took, and the best that was measured.

    Attributes:
        seconds: time that the run took, in all its sessions.
        epoch: over the steps of the epoch that goes on: `seconds` when it "began", numbers of "steps", "images" and
            steps "skipped" because a gradient overflowed, seconds "waiting" for images, losses, norm of the gradient.
        line: the same over the steps since the last line of the log.
        best: the best "mAP" on the validation images, at which "step" it was (0: none yet), and how many measurements
            there have been "since".
    """

    seconds: float = 0.0
    epoch: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0.0))
    line: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUMMED, 0.0))
    best: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SCORE, 0.0))

    def add(self, measured: Mapping[str, float], images: int) -> None:
        """Add what a step measured."""
        finite = {name: measured[name] for name in MEANS if math.isfinite(measured[name])}
        step = {**finite, "steps": 1, "images": images, "skipped": int(len(finite) < len(MEANS))}
        self._add(step)

    def waited(self, seconds: float) -> None:
        """Add time in which no image was ready."""
        self._add({"waiting": seconds})

    def _add(self, values: Mapping[str, float]) -> None:
        for sums in (self.epoch, self.line):
            for name, value in values.items():
                sums[name] += value

    def means(self, sums: Mapping[str, float]) -> dict[str, float]:
        """The entries of a line of the log that are means over the steps of `epoch` or `line`."""
        seconds = max(self.seconds - sums["began"], 1e-9)
        counts = dict.fromkeys(MEANS, sums["steps"]) | {"gradient_norm": max(1, sums["steps"] - sums["skipped"])}
        return {
            **{name: sums[name] / counts[name] for name in MEANS},
            **({"skipped": sums["skipped"]} if sums["skipped"] else {}),
            "images_per_second": round(sums["images"] / seconds, 1),
            "waiting": round(sums["waiting"] / seconds, 3),
        }

    def begin(self, sums: dict[str, float], seconds: float) -> None:
        """Start the sums of `epoch` or `line` anew."""
        sums.update(dict.fromkeys(SUMMED, 0.0) | {"began": seconds})

    def is_best(self, mean_ap: float, step: int) -> bool:
        """Whether the mAP at a step is the best so far, which is kept in mind."""
        if self.best["step"] and mean_ap <= self.best["mAP"]:
            self.best["since"] += 1
            return False
        self.best = {"mAP": mean_ap, "step": step, "since": 0}
        return True


def require_ready(out: Path, described: Mapping[str, Any], resume: bool) -> None:
    """Make sure that a run can begin in a folder, or that the run in it is the one that is asked for.

    Args:
        out: the folder.
        described: "config", "classes", "images" and "fingerprint" of the run; "val_fingerprint" of its validation
            images, if there are any.
        resume: go on with a run that is in the folder. Where there is none, one begins.

    Raises:
        FileExistsError: if there is a run and it shall not be resumed.
        ValueError: if the run in the folder is another one; the message says in what.
    """
    if (out / CONFIG).exists():
        if not resume:
            raise FileExistsError(f"{out} already holds a run; choose another folder, or go on with it (--resume)")
        _require_same(out, described)
        return
    strays = [name for name in (LOG, STATE, BEST, MODEL) if (out / name).exists()]
    if strays:
        raise FileExistsError(f"{out} holds {' and '.join(strays)}, but no {CONFIG} that says of which run")


def begin(out: Path, entries: Mapping[str, Any]) -> None:
    """Make the folder of a run with its config.json, if that is not there; clean up after writes that were killed."""
    for leftover in out.glob(".*.part.*"):
        leftover.unlink()
    if not (out / CONFIG).exists():
        write_text(out / CONFIG, json.dumps(entries, indent=2) + "\n")


def with_its_choices(config: TrainConfig, out: Path) -> TrainConfig:
    """A configuration in which what is "auto" is what the run in a folder chose when it began, if there is one."""
    recorded = recorded_config(out)[0] if rank() == 0 and (out / CONFIG).exists() else None
    recorded = from_first(recorded)  # another process may look when rank 0 has begun a run already
    if recorded is None:
        return config
    names = [name for name in ("precision", "memory_format") if getattr(config, name) == "auto"]
    return replace(config, **{name: getattr(recorded, name) for name in names})


def recorded_config(out: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The configuration of the run in a folder, and all entries of its config.json ("data" as a list).

    Raises:
        FileNotFoundError: if there is no run.
        ValueError: if it is of another version of this package, or says what cannot be; the message names the file and
            the entry.
    """
    path = out / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no JSON object: {error}") from error
    entries = parse_json(text, str(path))
    if isinstance(entries.get("data"), str):  # of a run with one folder, made before
        entries["data"] = [entries["data"]]
    if not isinstance(entries.get("config"), dict):
        raise ValueError(f"{path} has no entry config that is an object")
    try:
        config = config_from_dict(entries["config"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if "classes" in entries:
        class_names(entries["classes"], str(path))
    if entries.get("priors") is not None:
        recipe_of(entries["priors"], f"{path}: priors")
    for name, (fits, what) in NOTES.items():
        if name in entries and not fits(entries[name]):
            raise ValueError(f"{path}: {name} must be {what}, got {shown(entries[name])}")
    return config, entries


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(map(_is_text, value))


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


# What entries of config.json must be besides "config" and "classes".
NOTES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "images": (_is_count, "a whole number above 0"),
    "fingerprint": (_is_text, "a text"),
    "val_fingerprint": (_is_text_or_none, "a text or null"),
    "data": (_is_texts, "a list of folders"),
    "image_set": (_is_text, "a text"),
    "weights": (_is_text_or_none, "a text or null"),
    "init": (_is_text_or_none, "a text or null"),
    "val_data": (lambda value: value is None or _is_texts(value), "a list of folders or null"),
    "val_set": (_is_text_or_none, "a text or null"),
    "val_every": (_is_count, "a whole number above 0"),
    "tensorboard": (lambda value: isinstance(value, bool), "true or false"),
}


def finished(out: Path) -> bool:
    """Whether the run in a folder has come to its end."""
    return (out / MODEL).exists()


def save_state(out: Path, state: TrainState, progress: Progress) -> None:
    """Write where a run stands, and all that changes in its course.

    The optimizer's groups and the schedule are not among it: they follow from the configuration and the step.
    """
    saved: dict[str, Any] = {
        "format": FORMAT,
        "step": state.step,
        "progress": asdict(progress),
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
        "optimizer": state.optimizer.state_dict()["state"],
        "scaler": {} if state.scaler is None else {name: state.scaler.state_dict()[name] for name in SCALER},
        "random": torch.get_rng_state(),
    }
    saved["checksum"] = checksum(saved)
    with replaced(out / STATE) as aside:
        torch.save(saved, aside)


def load_state(out: Path, state: TrainState) -> Progress:
    """Bring the state of a run back to where it was saved last; leave it alone if it was never saved.

    Raises:
        ValueError: if the file is damaged, of an older version of this package, or no state of this run; then nothing
            of it was taken over.
    """
    path = out / STATE
    if not path.exists():
        return Progress()
    try:
        return _restore(_read_state(path), state, recorded_config(out)[0].iterations)
    except ValueError as error:
        raise ValueError(f"{path} is no state that this run can go on from: {error}") from error


def _read_state(path: Path) -> dict[str, Any]:
    """The entries of a state, which are those that were written; nothing says yet that they fit a run."""
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed, as no state is")  # and may become any size
        saved = read_torch_file(path)
    except OSError:
        raise
    except Exception as error:  # zipfile raises errors of many kinds
        raise ValueError(f"it is damaged, or no state at all ({said(error)})") from error
    if not isinstance(saved, dict):
        raise ValueError("it is no state at all")
    if saved.get("format") != FORMAT and saved.keys() & {"format", "place", "parts"}:
        raise ValueError(
            "it is of another version of ssdlib, with which the run can be ended; with this one, begin it anew in "
            "another folder"
        )
    if saved.keys() != ENTRIES:
        raise ValueError("it has not the entries of a state")
    if saved.pop("checksum") != checksum(saved):
        raise ValueError("it is damaged: its checksum is not that of its content")
    return saved


def _restore(saved: Mapping[str, Any], state: TrainState, iterations: int) -> Progress:
    """Check all parts of a state, then bring them back."""
    step = checked_step(saved["step"], iterations)
    progress = dict(saved["progress"]) if isinstance(saved["progress"], dict) else {}
    groups = {"epoch": SUMMED, "line": SUMMED, "best": SCORE}
    sums = {name: checked_numbers(progress.pop(name, None), set(of), f"progress.{name}") for name, of in groups.items()}
    seconds = checked_numbers(progress, {"seconds"}, "progress")["seconds"]
    model = checked_tensors(saved["model"], state.model.state_dict(), "model")
    average = checked_tensors(saved["average"], state.average.state_dict(), "average")
    moments = checked_optimizer(saved["optimizer"], state, step)
    scaler = checked_scaler(saved["scaler"], state)
    random = checked_random(saved["random"])

    state.step = step
    state.model.load_state_dict(model)
    state.average.load_state_dict(average)
    state.optimizer.load_state_dict({"state": moments, "param_groups": state.optimizer.state_dict()["param_groups"]})
    if step:  # it counts one on when it is made
        state.schedule = LambdaLR(state.optimizer, state.schedule.lr_lambdas[0], last_epoch=step - 1)
    if state.scaler is not None:
        state.scaler.load_state_dict({**state.scaler.state_dict(), **scaler})
    torch.set_rng_state(random)
    return Progress(seconds, **sums)


def end(out: Path) -> None:
    """Remove what only a run that goes on needs."""
    (out / STATE).unlink(missing_ok=True)


def add_to_log(out: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the log."""
    with open(out / LOG, "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def cut_log(out: Path, step: int) -> None:
    """Keep the lines up to a step; the others, and one that was written only in half, will be written again.

    Raises:
        ValueError: if the log is not UTF-8 text; the message names it.
    """
    if (out / LOG).exists():
        try:
            lines = (out / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
        except UnicodeDecodeError as error:
            raise ValueError(f"{out / LOG} is no log of a run: {error}") from error
        write_text(out / LOG, "".join(takewhile(lambda line: _step_of(line) <= step, lines)))


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite where it is none."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _require_same(out: Path, described: Mapping[str, Any]) -> None:
    theirs, entries = recorded_config(out)
    differ = differences(config_from_dict(described["config"]), theirs)
    priors = [None if of.get("priors") is None else recipe_of(of["priors"], "priors") for of in (entries, described)]
    if priors[0] != priors[1]:
        named = ["those of its network" if recipe is None else f"{recipe.name!r}" for recipe in priors]
        alike = ", though the names are the same" if named[0] == named[1] else ""
        differ.append(f"the priors {named[0]}, not {named[1]}{alike}")
    names = {"classes": "classes", "images": "number of images", "fingerprint": "list of images"}
    for key, name in names.items():
        if entries.get(key) != described[key]:
            differ.append(f"{name} {shown(entries.get(key))}, not {shown(described[key])}")
    was, is_now = entries.get("val_fingerprint"), described.get("val_fingerprint")
    if was and is_now and was != is_now:  # the best mAP so far would be compared with one on other images
        differ.append(f"list of validation images {shown(was)}, not {shown(is_now)}")
    if differ:
        raise ValueError(f"the run in {out} is another one and cannot go on: it has {'; '.join(differ)}")


@contextmanager
def stop_requests(single_process: bool) -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C (and the SIGTERM of a cluster) wait for the end of a step; a second one stops at once.

    Args:
        single_process: several processes cannot agree on a last step; there the signals work as usual.

    Yields:
        A function that says whether to stop.
    """
    asked: list[int] = []
    if not single_process or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def ask(number: int, _frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    usual = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in usual.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

"""Precision and memory format: what "auto" becomes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_run import QUICK, Images, log_of, sample_images, weights_of

from ssdlib.engine import precision, processes, run_folder, train
from ssdlib.engine.precision import has_bfloat16, precision_for, step_seconds, with_choices
from ssdlib.model import build_model

CPU = torch.device("cpu")
AUTO = replace(QUICK, precision="auto", memory_format="auto")
MODEL = build_model("ssd_tiny", ["a"])
OPTIONS = list(itertools.product(("bfloat16", "float32"), ("channels_last", "contiguous")))


@pytest.fixture(scope="module")
def sample() -> Images:
    images = sample_images()
    return Images(images.items[:2], images.classes)


def measuring(patch: pytest.MonkeyPatch, seconds: dict[tuple[str, str], float] | None, bfloat16: bool = True) -> None:
    """Let the steps take so long; None lets nothing be measured."""

    def measured(_: Any, __: Any, options: Any) -> dict[tuple[str, str], float]:
        assert seconds is not None, "measured"
        return {option: seconds[option] for option in options}

    patch.setattr(precision, "step_seconds", measured)
    patch.setattr(precision, "has_bfloat16", lambda _: bfloat16)


@given(times=st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4))
def test_the_fastest_is_taken_and_the_usual_one_where_it_is_close(times: list[float]):
    seconds = dict(zip(OPTIONS, times, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        measuring(patch, seconds)
        config, tried = with_choices(AUTO, MODEL, CPU)
    best, usual = min(times), seconds[OPTIONS[0]]
    chosen = (config.precision, config.memory_format)
    assert chosen == OPTIONS[0] if usual * 0.9 < best else seconds[chosen] == best
    assert list(tried) == [
        "bfloat16, channels_last",
        "bfloat16, contiguous",
        "float32, channels_last",
        "float32, contiguous",
    ]
    assert replace(config, precision="auto", memory_format="auto") == AUTO


def test_only_what_is_auto_is_chosen(monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, {option: 0.5**place for place, option in enumerate(OPTIONS)})  # the last is the fastest
    fixed, tried = with_choices(replace(AUTO, precision="bfloat16"), MODEL, CPU)
    assert (fixed.precision, fixed.memory_format, len(tried)) == ("bfloat16", "contiguous", 2)
    fixed, tried = with_choices(replace(AUTO, memory_format="channels_last"), MODEL, CPU)
    assert (fixed.precision, fixed.memory_format, len(tried)) == ("float32", "channels_last", 2)
    measuring(monkeypatch, None)
    assert with_choices(QUICK, MODEL, CPU) == (QUICK, {})


def test_where_bfloat16_is_imitated_it_is_not_tried(monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, {("float32", "channels_last"): 5.3, ("float32", "contiguous"): 3.0}, bfloat16=False)
    config, tried = with_choices(AUTO, MODEL, CPU)
    assert (config.precision, config.memory_format) == ("float32", "contiguous")
    assert tried == {"float32, channels_last": 5.3, "float32, contiguous": 3.0}
    measuring(monkeypatch, None, bfloat16=False)  # one option is no choice
    config, tried = with_choices(replace(AUTO, memory_format="channels_last"), MODEL, CPU)
    assert (config.precision, tried) == ("float32", {})


def test_on_a_gpu_nothing_is_measured(monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, None)
    config, tried = with_choices(AUTO, MODEL, torch.device("cuda", 0))
    assert (config.precision, config.memory_format, tried) == ("bfloat16", "channels_last", {})


def test_every_process_takes_what_the_first_measured(monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, None)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    monkeypatch.setattr(processes, "from_first", lambda _: dict.fromkeys(OPTIONS, 1.0) | {OPTIONS[3]: 0.1})
    config, _ = with_choices(AUTO, MODEL, CPU)
    assert (config.precision, config.memory_format) == OPTIONS[3]


def test_a_step_is_measured_for_every_option(monkeypatch: pytest.MonkeyPatch):
    clock = itertools.accumulate(itertools.cycle((0.0, 1.0)))  # each step takes one second
    monkeypatch.setattr("time.process_time", lambda: next(clock))
    before, generator = weights_of(MODEL), torch.get_rng_state()
    seconds = step_seconds(MODEL, 2, OPTIONS)
    assert seconds == dict.fromkeys(OPTIONS, 1.0)
    assert torch.equal(torch.get_rng_state(), generator)  # the run that follows draws its own random numbers
    after = weights_of(MODEL)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in MODEL.parameters())


def test_what_is_hopeless_is_tried_once(monkeypatch: pytest.MonkeyPatch):
    steps = [1.0, 0.5, 0.6, 0.8, 0.7, 0.4, 0.3]  # three of the first, one that is hopeless, three of the third
    times = itertools.accumulate(itertools.chain.from_iterable((0.0, step) for step in steps))
    monkeypatch.setattr("time.process_time", lambda: next(times))
    seconds = step_seconds(MODEL, 2, OPTIONS[:3])
    assert list(seconds.values()) == pytest.approx([0.5, 0.8, 0.3])
    assert next(times, None) is None


def test_auto_is_decided_and_recorded(sample: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    measuring(monkeypatch, dict.fromkeys(OPTIONS, 1.0) | {("float32", "contiguous"): 0.5})
    train(replace(AUTO, iterations=1), sample, tmp_path, progress=False)
    config = run_folder.recorded_config(tmp_path)[0]
    assert (config.precision, config.memory_format) == ("float32", "contiguous")


def test_the_memory_format_changes_no_result(sample: Images, tmp_path: Path):
    runs = []
    for name in ("channels_last", "contiguous"):
        train(replace(QUICK, iterations=1, memory_format=name), sample, tmp_path / name, progress=False)
        runs.append(log_of(tmp_path / name)[-1])
    for key in ("localization", "confidence", "gradient_norm"):
        assert runs[0][key] == pytest.approx(runs[1][key], rel=1e-3)


def test_has_bfloat16(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert has_bfloat16(torch.device("meta")) is False
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported", raising=False)
    assert has_bfloat16(torch.device("cpu")) is False
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert has_bfloat16(torch.device("cpu")) is True
    assert precision_for(torch.device("cpu")) == "bfloat16"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as ATEN_CPU_CAPABILITY=avx2 does
    assert has_bfloat16(torch.device("cpu")) is False


@pytest.mark.parametrize(
    ("capability", "expected"), [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")]
)
def test_the_precision_of_a_gpu(capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch):
    """P100, V100, T4, A100."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision_for(torch.device("cuda", 0)) == expected

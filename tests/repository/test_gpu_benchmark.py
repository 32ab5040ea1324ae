"""benchmarks/gpu.py: every part at a tiny size on the CPU; what is recorded stays; what takes too long goes on."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import save_file
from support.small_run import QUICK, Images, log_of, same_weights, sample_images

from ssdlib.engine import processes, train
from ssdlib.zoo.checkpoint import load_model

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("smoke", "cells", "paper", "loader", "resume", "latency", "profile")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


@pytest.fixture
def work(gpu: Any) -> Any:
    return importlib.import_module("gpu_parts.work")


def run(gpu: Any, folder: Path, only: str = "", **changes: Any) -> dict[str, dict[str, Any]]:
    """The records after the command."""
    asked = {"device": "cpu", "workers": 0, "minutes": 9.0, "data": None, "weights": None, "name": "gpu", "small": True}
    gpu.main(only=only, results=folder, folder=folder / "runs", **{**asked, **changes})
    return {part: json.loads((folder / f"gpu_{part}.json").read_text()) for part in gpu.chosen(only)}


@pytest.mark.slow
def test_every_part_and_that_nothing_is_measured_twice(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    records = run(gpu, tmp_path)
    assert tuple(records) == PARTS
    for record in records.values():
        assert {"commit", "date", "hardware", "versions", "command", "settings", "targets"} <= record.keys()
        assert len(record["runs"]) > 0

    (smoke,) = records["smoke"]["runs"]
    limits = records["smoke"]["limits"]
    flop = limits["operations_an_image"]
    # Backwards, a layer computes twice what it computes forward, but for the first one, which needs no gradient below.
    assert 2.8 < flop["paper"]["training"] / flop["paper"]["forward"] < 3
    assert 60e9 < flop["paper"]["forward"] < 65e9  # 31 thousand million multiplications
    assert flop["paper512"]["forward"] / flop["paper"]["forward"] == pytest.approx(2.9, abs=0.1)
    share = smoke["images_per_second"] * flop["tiny"]["training"] / limits["bfloat16_operations_per_second"]
    assert smoke["share_of_limit"] == pytest.approx(share, abs=1e-3)
    assert smoke["images_per_second"] == pytest.approx(2000 / smoke["milliseconds"], rel=0.01)
    assert 0 <= smoke["waiting"] <= 1

    (cells,) = records["cells"]["runs"]
    assert cells["steps"] == 3
    assert cells["AP"].keys() == {"ball", "crate", "donut", "fish", "leaf", "star"}
    assert [line["step"] for line in cells["log"]][-1] == 3

    (paper,) = records["paper"]["runs"]
    assert (paper["step"], paper["of"], paper["mAP_at_step"]) == (6, 6, 6)
    assert [line["step"] for line in records["paper"]["log"]] == [3, 6]

    rows = [(row["side"], row["source"], row["augmented"]) for row in records["loader"]["runs"]]
    ours = [("ssdlib", source, place) for source in ("JPEG files", "memory") for place in ("device", "loader")]
    assert rows == [*ours, ("torchvision", "memory", "loader")]
    decoding = records["loader"]["decoding"]
    assert decoding["images"] == 2
    assert decoding["levels_apart"] <= 2  # of 255: on a CPU the same library, perhaps of another version
    assert min(decoding["processor_images_per_second"], decoding["device_images_per_second"]) > 0

    alike, killed = records["resume"]["runs"]
    assert (alike["runs"], killed["runs"]) == ("two runs alike", "killed and resumed")
    for row in (alike, killed):  # on a CPU bit for bit
        assert (row["largest_difference_of_a_weight"], row["differing_share"]) == (0, 0)
    assert not (tmp_path / "runs" / "whole").exists()

    rows = [(row["side"], row["batch"], row["way"]) for row in records["latency"]["runs"]]
    assert rows == [(side, batch, "as it is") for batch in (2, 1) for side in ("ssdlib", "torchvision")]
    for row in records["latency"]["runs"]:
        assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds"], rel=0.01, abs=0.1)

    (profile,) = records["profile"]["runs"]
    assert sum(profile["shares"].values()) == pytest.approx(1, abs=1e-3)
    assert max(profile["shares"], key=lambda kind: profile["shares"][kind]) == "convolutions"
    assert 0.5 < profile["computing"] <= 1
    assert (tmp_path / "gpu_profile.svg").stat().st_size > 5000

    capsys.readouterr()
    for module, names in (("work", ["train_on"]), ("runs", ["train", "run_once"]), ("latency", ["seconds_of"])):
        for name in names:
            monkeypatch.setattr(importlib.import_module(f"gpu_parts.{module}"), name, None)
    assert run(gpu, tmp_path) == records
    assert "FAILED" not in capsys.readouterr().err


def test_parts_are_chosen_by_name_and_by_letter(gpu: Any):
    assert gpu.chosen("") == [*PARTS]
    assert gpu.chosen("latency, a") == ["smoke", "latency"]
    with pytest.raises(typer.BadParameter, match="there is no part 'h'; there are smoke, "):
        gpu.chosen("h")


def test_without_a_gpu_it_says_so(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.BadParameter, match="there is no CUDA device"):
        run(gpu, tmp_path, device="cuda")


def test_without_blood_cells_their_part_is_left_out(gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    runs, work = (importlib.import_module(f"gpu_parts.{name}") for name in ("runs", "work"))
    for cells in (None, tmp_path / "nowhere"):
        runs.cells(asked_for(work, tmp_path, small=False, cells=cells))
        assert "cells: left out, as there are no images" in capsys.readouterr().out
    assert not (tmp_path / "gpu_cells.json").exists()


def test_a_part_that_fails_does_not_end_the_others(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    done: list[str] = []

    def fails(_asked: Any) -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(gpu, "PARTS", {"smoke": fails, "cells": lambda asked: done.append(asked.command)})
    with pytest.raises(typer.Exit) as ended:
        gpu.main("", "cpu", 3, 9.0, Path("here/cells"), None, "gpu", tmp_path, True, tmp_path)
    assert ended.value.exit_code == 1
    assert done == ["python benchmarks/gpu.py --device cpu --workers 3 --cells data/cells"]
    assert "smoke: FAILED: no driver" in capsys.readouterr().err


def asked_for(work: Any, folder: Path, **changes: Any) -> Any:
    return work.Asked(**{"device": torch.device("cpu"), "small": True, "results": folder, "workers": 0, **changes})


def test_what_is_recorded_is_not_measured_again(work: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done: list[tuple[int, str]] = []

    def measure(batch: int, way: str) -> dict[str, Any]:
        done.append((batch, way))
        if batch == 3:
            raise torch.OutOfMemoryError("tried to allocate")
        return {"seconds": 0.5}

    wanted = [{"batch": batch, "way": "plain"} for batch in (1, 3)]
    targets = {"seconds": "<= 1"}
    work.Figures(asked_for(work, tmp_path), "some", targets).measure(wanted, measure)
    assert "some: batch 1, way plain, seconds 0.5  [target: seconds <= 1]" in capsys.readouterr().out
    figures = work.Figures(asked_for(work, tmp_path), "some", targets)
    figures.measure([{"batch": 1, "way": "graph"}, *wanted], measure)
    assert done == [(1, "plain"), (3, "plain"), (1, "graph")]
    rows = json.loads((tmp_path / "gpu_some.json").read_text())["runs"]
    assert [row.get("error") for row in rows] == [None, "out of memory", None]
    with pytest.raises(ValueError, match="is of small True, not False: give another --name"):
        work.Figures(asked_for(work, tmp_path, small=False), "some")


def test_a_figure_that_fails_is_told_and_the_others_are_measured(work: Any, tmp_path: Path):
    def measure(batch: int) -> dict[str, Any]:
        if batch == 2:
            raise ValueError("no such kernel")
        if batch == 3:  # as in the trial of a compiler
            try:
                raise torch.OutOfMemoryError("tried to allocate")
            except torch.OutOfMemoryError:
                raise UserWarning("torch.compile does not work here") from None
        return {"seconds": 0.5}

    wanted = [{"batch": batch} for batch in (2, 3, 4)]
    with pytest.raises(RuntimeError, match=r"1 of the figures failed, the first of them .*: no such kernel"):
        work.Figures(asked_for(work, tmp_path), "some").measure(wanted, measure)
    rows = json.loads((tmp_path / "gpu_some.json").read_text())["runs"]
    assert rows == [{"batch": 3, "error": "out of memory"}, {"batch": 4, "seconds": 0.5}]


def test_what_could_not_be_compiled_is_no_figure_of_a_compiled_step(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(UserWarning, match=r"torch.compile does not work here"):
        work.steps_of_a_run(replace(QUICK, compile=True), work.Photographs(tmp_path, 2), torch.device("cpu"), 0)


def test_a_run_that_crashed_was_not_killed(work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = importlib.import_module("gpu_parts.runs")
    monkeypatch.setattr(runs, "run_once", lambda *_, **__: None)
    crashed = SimpleNamespace(exitcode=1, start=lambda: None, join=lambda: None)
    context = SimpleNamespace(Process=lambda **_: crashed)
    monkeypatch.setattr(runs.multiprocessing, "get_context", lambda _: context)
    monkeypatch.setattr(runs, "difference", lambda *_: {})
    with pytest.raises(RuntimeError, match="the run was to be killed after step 2, and ended with 1"):
        runs.resume(replace(asked_for(work, tmp_path), folder=tmp_path))


def test_a_record_tells_of_a_run_that_goes_on(work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Until it is done: a loan can end at any moment."""
    runs = importlib.import_module("gpu_parts.runs")
    monkeypatch.setattr(runs, "RECORD_EVERY", -1.0)
    figures = work.Figures(asked_for(work, tmp_path), "some")
    runs.as_far_as_time_goes(figures, replace(QUICK, iterations=2), sample_images(2), tmp_path / "run")
    running = json.loads((tmp_path / "gpu_some.json").read_text())["running"]
    assert running["run"] == "run"
    assert [line["step"] for line in running["log"]] == [1, 2]
    figures.add({"detector": "some"}, {})
    assert "running" not in json.loads((tmp_path / "gpu_some.json").read_text())


def test_no_figure_is_begun_after_the_minutes(work: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    figures = work.Figures(asked_for(work, tmp_path, minutes=0.0), "some")
    assert list(figures.missing([{"batch": 1}, {"batch": 2}])) == []
    assert "some: no time left for 2 more; the same command goes on from here" in capsys.readouterr().out


def test_figures_of_another_commit_say_so(work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    work.Figures(asked_for(work, tmp_path), "some").add({"batch": 1}, {})
    real = work.circumstances
    monkeypatch.setattr(work, "circumstances", lambda device: {**real(device), "commit": "abc"})
    work.Figures(asked_for(work, tmp_path), "some").add({"batch": 2}, {})
    rows = json.loads((tmp_path / "gpu_some.json").read_text())["runs"]
    assert [row.get("commit") for row in rows] == [None, "abc"]


def test_a_run_stops_when_the_minutes_are_over_and_goes_on(work: Any, tmp_path: Path):
    """It ends as if it had never been stopped."""
    runs = importlib.import_module("gpu_parts.runs")
    sample: Images = sample_images(4)  # two steps make an epoch
    config = replace(QUICK, iterations=6)
    late = SimpleNamespace(seconds_left=0.0, asked=asked_for(work, tmp_path), part="some")
    assert runs.as_far_as_time_goes(late, config, sample, tmp_path / "run") is None
    assert log_of(tmp_path / "run")[-1]["step"] == 2
    early = SimpleNamespace(seconds_left=60.0, asked=asked_for(work, tmp_path), part="some")
    model = runs.as_far_as_time_goes(early, config, sample, tmp_path / "run")
    whole = train(config, sample, tmp_path / "whole", progress=False)
    assert same_weights(model, whole)
    assert same_weights(load_model(tmp_path / "run" / "model.safetensors"), whole)
    assert log_of(tmp_path / "run") == log_of(tmp_path / "whole")


def test_ctrl_c_of_the_user_is_not_taken_for_the_end_of_the_minutes(
    work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = importlib.import_module("gpu_parts.runs")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train", interrupted)
    early = SimpleNamespace(seconds_left=60.0, asked=asked_for(work, tmp_path), part="some")
    with pytest.raises(KeyboardInterrupt):
        runs.as_far_as_time_goes(early, QUICK, sample_images(2), tmp_path / "run")


def test_the_difference_of_two_runs(work: Any, tmp_path: Path):
    """One number of one tensor is changed, and the loss of the last line."""
    runs = importlib.import_module("gpu_parts.runs")
    weights = {"a": torch.full((2, 2), 3.0), "b": torch.full((4,), 4.0), "count": torch.tensor(7)}
    for name, change in (("one", 0.0), ("other", 0.5)):
        (tmp_path / name).mkdir()
        weights["a"][0, 0] += change
        save_file(weights, tmp_path / name / "model.safetensors")
        (tmp_path / name / "log.jsonl").write_text(json.dumps({"step": 1, "confidence": 2 + change}) + "\n")
    found = runs.difference(tmp_path / "one", tmp_path / "other")
    assert found["largest_difference_of_a_weight"] == 0.5
    assert found["relative_difference_of_all"] == pytest.approx(0.05)
    assert found["differing_share"] == 1 / 8
    assert found["difference_of_the_last_loss"] == 0.5


def test_scenes_are_shared_by_folders(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs = importlib.import_module("gpu_parts.runs")
    asked: list[tuple[str, int, int]] = []

    def draw(path: Path, train: int, seed: int, **_: Any) -> Path:
        asked.append((path.name, train, seed))
        return path

    class Pool:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

        def submit(self, work: Any, *args: Any, **options: Any) -> Any:
            result = work(*args, **options)
            return SimpleNamespace(result=lambda: result)

    monkeypatch.setattr(runs, "make_toy_voc", draw)
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Pool)
    assert [path.name for path in runs.drawn(tmp_path, 7, 3)] == ["scenes_00", "scenes_01", "scenes_02"]
    assert asked == [("scenes_00", 3, 1), ("scenes_01", 3, 2), ("scenes_02", 1, 3)]
    assert len(runs.drawn(tmp_path, 4, 3)) == 2  # two of two


def test_names_of_kernels_have_kinds(gpu: Any):
    kind_of = importlib.import_module("gpu_parts.profiles").kind_of
    for name, kind in (
        ("sm90_xmma_fprop_implicit_gemm_bf16", "convolutions"),
        ("void at::native::batch_norm_transform_input_channels_last_kernel<...>", "normalisation"),
        ("multi_tensor_apply_kernel<FusedSgdMathFunctor>", "optimizer and averages"),
        ("Memcpy HtoD (Pinned -> Device)", "copies and casts"),
        ("DeviceSegmentedRadixSortKernel", "sorting (mining, matching)"),
        ("max_pool_forward_nhwc", "ReLU, pooling"),
        ("something", "all else"),
    ):
        assert kind_of(name) == kind


def test_a_decoder_that_is_not_there_is_no_end_of_the_part(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    loading, work = (importlib.import_module(f"gpu_parts.{name}") for name in ("loading", "work"))

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("no decoder\nand a long story")

    monkeypatch.setattr(loading.io, "decode_jpeg", refuse)
    measured = loading.decoding(work.Photographs(tmp_path, 2).files, torch.device("cpu"), 1)
    assert measured["error"] == "no decoder"
    assert measured["processor_images_per_second"] > 0


def test_a_compiled_step_by_the_loop_of_a_gpu(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))
    smoke = importlib.import_module("gpu_parts.smoke")
    real = torch.compile
    modes = []

    def compile_(model: Any, *, mode: str, **_: Any) -> Any:
        modes.append(mode)
        return real(model, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(smoke, "WAYS", (("float32", True, smoke.GRAPHS),))
    (row,) = run(gpu, tmp_path, "a")["smoke"]["runs"]
    assert (row["compiled"], row["mode"]) == (True, "reduce-overhead")
    assert modes == ["reduce-overhead"] * 2  # network and loss
    assert row["images_per_second"] > 0

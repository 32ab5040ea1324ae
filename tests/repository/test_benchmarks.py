"""The scripts that measure: each runs at a tiny size, and what they call equal is compared indeed."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from support.commands import call
from torchvision.transforms.v2.functional import to_pil_image

from ssdlib.boxes import xyxy_to_cxcywh
from ssdlib.data import VOCDataset, open_dataset, sample_root
from ssdlib.engine import PRESETS, train
from ssdlib.model import TINY
from ssdlib.widgets import TrainingPlayer
from ssdlib.zoo import demo_model
from ssdlib.zoo.checkpoint import save_model

matplotlib.use("Agg")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _as_scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    with matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)


def test_a_record_that_is_written_anew_is_no_change_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    record = importlib.import_module("record")
    code, figures = tmp_path / "ssdlib" / "nms.py", tmp_path / "ssdlib" / "engine" / "records" / "a.json"
    figures.parent.mkdir(parents=True)
    for file in (code, figures):
        file.write_text("1")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "begun")):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *names, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(record, "ROOT", tmp_path)
    commit = record.circumstances()["commit"]
    figures.write_text("2")
    assert record.circumstances()["commit"] == commit
    code.write_text("2")
    assert record.circumstances()["commit"] == f"{commit}+changes"


def test_ways_to_priors_are_counted_on_the_objects_that_they_are_for(tmp_path: Path):
    shapes = importlib.import_module("prior_shapes")
    shapes.main([f"again={sample_root()}"], results=tmp_path)
    record = json.loads((tmp_path / "prior_shapes.json").read_text())
    drawn, again = record["sets"]["drawn"], record["sets"]["again"]
    assert drawn == again
    assert drawn["objects"] == {"fit": 167, "test": 92}
    assert list(drawn["ways"]) == ["by hand", "quantiles", "recall", "clusters"]
    assert drawn["elbow"] == sorted(drawn["elbow"])
    for rows in drawn["ways"].values():
        for figures in rows.values():
            assert figures["mean_iou"] <= figures["shape_iou"]  # no prior is nearer than at the very centre
            assert figures["covered"] > 0.8
    boxes = torch.tensor([[0.1, 0.1, 0.2, 0.3], [0.5, 0.5, 0.9, 0.6], [0.2, 0.2, 0.6, 0.6]] * 20)
    recipe = shapes.by_quantiles(boxes, TINY)
    assert recipe.priors_per_cell == TINY.priors_per_cell
    smallest, largest = recipe.shapes(0)[0], recipe.shapes(4)[-1]
    assert smallest == pytest.approx((0.1, 0.2), abs=1e-3)  # what the first 12 of 60 objects look like
    assert largest == pytest.approx((0.4, 0.4), abs=1e-3)


@pytest.mark.slow
def test_pairs_are_timed_by_turns_after_their_results_are_compared():
    timing = importlib.import_module("timing")
    calls: list[str] = []

    def side(name: str, value: int) -> Any:
        return lambda: (calls.append(name), value)[1]

    def same(a: int, b: int) -> str:
        assert (a, b) == (1, 2)
        calls.append("same")
        return "agreed"

    row = timing.compare(timing.Pair("work", side("a", 1), side("b", 2), same, target=1e9, limit=1e9), rounds=3)
    timed = calls[-6:]
    assert calls[:3] == ["a", "b", "same"]
    assert timed == ["a", "b"] * 3
    assert row.met
    assert row.same == "agreed"
    assert len(row.ratios) == 3
    assert row.ratio == sorted(row.ratios)[1]
    assert not timing.compare(timing.Pair("work", side("a", 1), side("b", 2), same, target=0.0)).met
    assert "MISSED" in timing.table([timing.compare(timing.Pair("w", side("a", 1), side("b", 2), same, target=0.0))])
    with pytest.raises(AssertionError):
        timing.compare(timing.Pair("work", side("a", 1), side("b", 3), same, target=1.0))


def test_what_a_core_of_the_loader_prepares(tmp_path: Path):
    importlib.import_module("loader").main(images=2, rounds=2, results=tmp_path)
    rows = json.loads((tmp_path / "loader.json").read_text())["rows"]
    assert [(row["source"], row["augment_on"]) for row in rows] == [
        (source, place) for source in ("JPEG files", "memory") for place in ("loader", "device")
    ]
    assert rows[3]["images_per_second"] > rows[0]["images_per_second"] > 0  # nothing to decode, nothing to vary


def test_peak_memory_counts_what_is_freed_before_the_end():
    timing = importlib.import_module("timing")
    peak = timing.peak_memory(lambda: torch.ones(16, 1024, 1024).sum().item())  # 64 MiB for a moment
    if peak is None:
        pytest.skip("this system does not tell the peak of a process")
    assert 60 * 2**20 < peak < 90 * 2**20


def test_results_that_differ_are_noticed():
    peers = importlib.import_module("peers")
    for pair, spoil in (
        (peers.loss(2, 3), lambda losses: {**losses, "confidence": losses["confidence"] * 1.001}),
        (peers.detection(True, 1), lambda found: [{**found[0], "boxes": found[0]["boxes"] + 0.001}]),
        (peers.matching(1, 3), lambda matched: [matched[0].roll(1)]),
    ):
        ours, theirs = pair.ours(), pair.theirs()
        assert pair.same(ours, theirs)
        with pytest.raises(AssertionError):
            pair.same(spoil(ours), theirs)


@pytest.mark.slow
def test_checkpoints(tmp_path: Path):
    """Two steps; the record is one that the player plays, and its run is that of `train`."""
    checkpoints = importlib.import_module("checkpoints")
    options = {"preset": "tiny", "window": 1, "precision": "float32", "seed": 3, "ap": "area", "threads": 0}
    checkpoints.main(sample_root(), "small", at=[0, 2], scenes=[28], results=tmp_path, **options)
    record = json.loads((tmp_path / "small.json").read_text())
    assert [each["step"] for each in record["checkpoints"]] == [0, 2]
    assert all(row[4] >= record["min_score"] for each in record["checkpoints"] for row in each["detections"][0])
    config = replace(PRESETS["tiny"], iterations=2, seed=3)
    model = train(config, open_dataset(sample_root(), "trainval"), tmp_path / "run", progress=False)
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    for loss in ("localization", "confidence"):
        assert sum(record["curve"][loss]) / 2 == pytest.approx(line[loss], abs=1e-3)
    (found,) = model.predict([VOCDataset(sample_root(), "test")[28][0]], min_score=0.1, top_k=20)
    rows = torch.tensor(record["checkpoints"][1]["detections"][0])
    torch.testing.assert_close(rows[:, :4], found["boxes"], atol=0.051, rtol=0)
    torch.testing.assert_close(rows[:, 4], found["scores"], atol=6e-4, rtol=0)
    assert TrainingPlayer(record).current["step"] == 0


@pytest.mark.slow
def test_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    speed = importlib.import_module("speed")
    only = ["loss", "detection", "pipeline", "COCO"]
    speed.main(name="small", only=only, rounds=1, threads=1, small=True, results=tmp_path)
    record = json.loads((tmp_path / "small.json").read_text())
    assert {"commit", "date", "hardware", "versions", "command", "threads"} <= record.keys()
    assert set(record["hardware"]["features"]) <= {"AVX2", "AVX-512", "AVX-512 bfloat16", "AMX"}
    printed = capsys.readouterr().out
    expected = ["matching + loss", "detection, trained", "detection, untrained", "detection, SSD512"]
    expected += ["detection, 1001 classes", "pipeline"]
    coco = {
        "pycocotools": "evaluation of COCO's size",
        "faster_coco_eval": "evaluation of COCO's size, faster-coco-eval",
    }
    here = {name: bool(importlib.util.find_spec(library)) for library, name in coco.items()}
    expected += [name for name, there in here.items() if there]
    assert {each["name"] for each in record["not_here"]} == {name for name, there in here.items() if not there}
    assert [row["name"] for row in record["rows"]] == expected
    for row in record["rows"]:
        assert row["ours"] > 0
        assert row["ratio"] == pytest.approx(row["ours"] / row["theirs"], abs=1e-3)
        assert row["work"] in printed
        assert row["same"]


@pytest.mark.slow
def test_speed_of_the_network(tmp_path: Path):
    speed = importlib.import_module("speed")
    only = ["training, bfloat16", "inference, batch 1, float32", "ONNX"]
    speed.main(name="small", only=only, rounds=1, threads=1, small=True, results=tmp_path)
    record = json.loads((tmp_path / "small.json").read_text())
    assert len(record["rows"]) + len(record["not_here"]) == len(only)
    assert "inference, batch 1, float32" in [row["name"] for row in record["rows"]]


def test_speed_keeps_rows_of_the_same_code_and_machine_and_marks_what_cannot_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    speed, timing = importlib.import_module("speed"), importlib.import_module("timing")

    def impossible() -> Any:
        raise timing.NotHere("no circuits")

    def pair(target: float) -> Any:
        return lambda: timing.Pair("sum", lambda: sum(range(99)), lambda: sum(range(99)), lambda a, b: "equal", target)

    now = {"commit": "abc", "date": "then", "hardware": {"limited_by": "A=1"}, "versions": {}, "threads": 1}
    monkeypatch.setattr(speed, "circumstances", lambda: {k: v for k, v in now.items() if k != "threads"})
    monkeypatch.setattr(speed, "works", lambda *_: {"one": pair(1e9), "two": impossible, "three": pair(0.0)})
    calls = {"rounds": 1, "threads": 1, "results": tmp_path, "name": "s"}

    def record() -> dict[str, Any]:
        return json.loads((tmp_path / "s.json").read_text())

    speed.main(only=["two", "three"], **calls)
    assert record()["not_here"] == [{"name": "two", "why": "no circuits"}]
    assert "two: no circuits" in capsys.readouterr().out
    speed.main(only=["one"], **calls)
    assert [(row["name"], row["met"]) for row in record()["rows"]] == [("one", True), ("three", False)]
    assert record()["not_here"] == [{"name": "two", "why": "no circuits"}]
    assert record()["command"].startswith("A=1 OMP_NUM_THREADS=1 ")
    before = record()["rows"][1]
    speed.main(only=["three"], **calls)
    assert len(record()["rows"]) == 2
    assert record()["rows"][1] != before
    monkeypatch.setattr(speed, "UNLIMITED", ("three",))
    speed.main(only=["three"], **calls)
    assert [row["name"] for row in record()["rows"]] == ["one"]
    assert [row["name"] for row in record()["not_here"]] == ["two", "three"]
    now["commit"], now["date"] = "def", "today"
    old = record()["rows"][0]
    assert "measured" not in old
    speed.main(only=["nothing"], keep=True, **calls)  # a run that measures nothing writes nothing
    assert record()["rows"] == [old]
    speed.main(only=["two"], keep=True, **calls)
    assert record()["rows"] == [{**old, "measured": {"commit": "abc", "date": "then"}}]
    assert record()["commit"] == "def"
    now["commit"] = "ghi"
    speed.main(only=["two"], keep=True, **calls)
    assert record()["rows"] == [{**old, "measured": {"commit": "abc", "date": "then"}}]
    speed.main(only=["one"], keep=True, **calls)
    assert "measured" not in record()["rows"][0]
    now["commit"] = "jkl"  # what the code of before did says nothing of it now
    speed.main(only=["one"], **calls)
    assert [row["name"] for row in record()["rows"]] == ["one"]
    assert record()["not_here"] == []


def test_the_name_of_a_record_is_that_of_the_kind_of_processor(monkeypatch: pytest.MonkeyPatch):
    speed, record = importlib.import_module("speed"), importlib.import_module("record")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert speed.default_name() == "speed"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert speed.default_name() == "speed_avx2"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert record.processor_features()["limited_by"] == "ONEDNN_MAX_CPU_ISA=AVX2"
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    assert "limited_by" not in record.processor_features()


@pytest.mark.slow
def test_growth(tmp_path: Path):
    growth = importlib.import_module("growth")
    growth.main(name="small", rounds=1, threads=1, small=True, results=tmp_path)
    record = json.loads((tmp_path / "small.json").read_text())
    assert [len(series["points"]) for series in record["series"]] == [1] * 7 + [2]
    assert (tmp_path / "small.svg").stat().st_size > 1000


@pytest.mark.slow
def test_single_steps_give_what_they_replace(tmp_path: Path):
    steps = importlib.import_module("steps")
    pairs = [pair for pair, _ in zip(steps.steps(small=True), range(5), strict=False)]  # those before the network
    for pair in pairs:
        assert pair.same(pair.ours(), pair.theirs())
    images, weights = torch.rand(2, 32, 64, 64), torch.rand(32, 32, 3, 3)
    shares = steps.shares(lambda: torch.nn.functional.conv2d(images, weights).relu_())
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert len(shares) > 1
    largest = steps.operations(lambda: torch.nn.functional.conv2d(images, weights).relu_(), most=2)
    assert "convolution" in next(iter(largest))
    profiles, rates = steps.tiny_sides(tmp_path, 3)
    assert len(profiles) == len(rates) == 1 + bool(importlib.util.find_spec("onnxruntime"))
    for parts in profiles.values():
        assert sum(parts.values()) == pytest.approx(1, abs=1e-3)
        assert 0.3 < parts["convolutions, forward"] < 1
    assert all(1e8 < rate < 1e13 for rate in rates.values())
    sides, needed = steps.inference_sides(small=True)
    products: list[int] = []

    def count(module: torch.nn.Conv2d, _: Any, output: torch.Tensor) -> None:
        products.append(output.numel() * module.weight[0].numel())

    ssdlite = importlib.import_module("peer_networks").detector(21, "ssdlite320_mobilenet_v3_large")
    hooks = [part.register_forward_hook(count) for part in ssdlite.modules() if isinstance(part, torch.nn.Conv2d)]
    sides["torchvision, inference"]()
    for hook in hooks:
        hook.remove()
    assert needed == 2 * sum(products)
    assert 0 < steps.convolution_seconds(sides["ssdlib, inference"]) < 60
    assert steps.product_rate(64) > 1e6


def test_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tiles = importlib.import_module("tiles")
    tiles.main(["--images", "1", "--columns", "3", "--rows", "2", "--tiles", "340", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "tiles.json").read_text())
    whole, windows = record["rows"]
    assert (whole["tiles"], windows["tiles"]) == (None, 340)
    assert windows["mAP"] > whole["mAP"]
    _, target = tiles.mosaic(0, 3, 2)
    assert (target["boxes"][:, 2] <= 960).all()
    assert (target["boxes"][:, 0] > 320).any()  # moved to where its scene is


def test_a_detector_is_measured_on_photographs_with_yolo_labels(tmp_path: Path):
    photographs = importlib.import_module("photographs")
    model = demo_model()
    names = ["kite", *model.classes]  # the data know a class that the detector does not
    dataset = VOCDataset(sample_root(), "test")
    for folder in ("images", "labels"):
        (tmp_path / folder / "train2017").mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("names:\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(names)))
    for i, (image, target) in enumerate(dataset):
        to_pil_image(image).save(tmp_path / "images" / "train2017" / f"{i}.png")
        boxes = xyxy_to_cxcywh(target["boxes"]) / torch.tensor([image.shape[2], image.shape[1]] * 2)
        rows = [[label, *box] for label, box in zip(target["labels"].tolist(), boxes.tolist(), strict=True)]
        text = "\n".join(" ".join(map(str, row)) for row in [[0, 0.5, 0.5, 0.1, 0.1], *rows])
        (tmp_path / "labels" / "train2017" / f"{i}.txt").write_text(text)
    found = photographs.measure(model, tmp_path)
    assert found["images"] == len(dataset)
    assert found["objects"] == sum(len(target["labels"]) for _, target in dataset)
    assert found["mAP"] > 0.8
    assert set(found["by_class"]) <= set(model.classes)
    assert sum(row["objects"] for row in found["at_score_0.3"]["recall_by_size"]) == found["objects"]


def test_the_order_of_colours(tmp_path: Path):
    colour_order = importlib.import_module("colour_order")
    colour_order.main(["--scenes", "6", "--out", str(tmp_path)])
    (row,) = json.loads((tmp_path / "colour_order.json").read_text())["rows"]
    assert row["mAP"]["RGB"] > 0.8
    assert row["AP"]["RGB"] != row["AP"]["BGR"]  # the network saw other pixels
    assert 0 < row["found"]["BGR"] <= row["objects"]
    assert colour_order.ORDERS["BGR"](torch.arange(3)[:, None, None]).flatten().tolist() == [2, 1, 0]


def test_latency(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    latency = importlib.import_module("latency")
    monkeypatch.setattr(latency, "sizes", lambda model: {"float32": 2.9})  # tests/deploy exports
    options = ["--seconds", "0.02", "--in-flight", "1", "2", "--batch", "1", "2", "--runtimes", "torch"]
    latency.main([*options, "--small", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "bench.json").read_text())
    (model,) = record["models"]
    assert [(row["batch"], row["in_flight"]) for row in model["timings"]] == [(1, 1), (1, 2), (2, 1)]
    assert [(row["batch"], row["in_flight"]) for row in model["whole"]] == [(1, 1), (1, 2)]
    assert len(record["load"]) == 2
    assert capsys.readouterr().out.count("torch ") == 5


def test_tracks_are_measured_by_trackeval(tmp_path: Path):
    pytest.importorskip("trackeval")
    pytest.importorskip("scipy")
    tracking = importlib.import_module("tracking")
    tracking.main(["--clips", "1", "--frames", "16", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "tracking.json").read_text())
    rows = {(row["situation"], row["way"]): row for row in record["rows"]}
    assert len(rows) == 4 * len(tracking.WAYS)
    true = rows["all", "true boxes"]
    assert (true["HOTA"], true["MOTA"], true["IDF1"], true["switches"], true["numbers"]) == (100, 100, 100, 0, 8)
    ours = rows["all", "as it is"]
    assert 50 < ours["HOTA"] < 100
    assert ours["misses"] + ours["false"] > 0
    assert ours["HOTA"] == pytest.approx((ours["DetA"] * ours["AssA"]) ** 0.5, abs=2)
    assert rows["crossing", "standing still"]["switches"] > 0


def test_numbers_that_change_cost_idf1_and_not_mota_much(tmp_path: Path):
    """trackeval reads what we write: an object that changes its number halfway through."""
    pytest.importorskip("trackeval")
    tracking = importlib.import_module("tracking")
    truth = [f"{frame},1,{frame},20,30,40,1,1,1.0" for frame in range(1, 21)]
    ours = [f"{frame},{7 if frame <= 10 else 8},{frame},20,30,40,0.9,-1,-1,-1" for frame in range(1, 21)]
    tracking.write(tmp_path / "truth" / "a" / "gt" / "gt.txt", truth)
    tracking.write(tmp_path / "tracks" / "ours" / "data" / "a.txt", ours)
    found = tracking.figures(tmp_path, {"a": 20})
    assert (found["switches"], found["MOTA"], found["IDF1"], found["DetA"]) == (1, 95, 50, 100)
    assert found["AssA"] == 50


def test_the_text_of_ssd_track_is_read_by_trackeval(tmp_path: Path):
    pytest.importorskip("trackeval")
    pytest.importorskip("av")
    from ssdlib.deploy.video import VideoWriter

    tracking = importlib.import_module("tracking")
    lines: list[str] = []
    with VideoWriter(tmp_path / "clip.mp4", Fraction(10)) as writer:
        for number, (image, objects) in enumerate(tracking.render_clip("leaving", 1, 12)):
            writer.write(image, number / 10)
            lines += tracking.truth_lines(number, objects)
    tracking.write(tmp_path / "truth" / "clip" / "gt" / "gt.txt", lines)
    mot = tmp_path / "tracks" / "ours" / "data" / "clip.txt"
    demo = save_model(demo_model(), tmp_path / "model.safetensors")
    result = call("track", demo, tmp_path / "clip.mp4", "--mot", mot, "--device", "cpu")
    assert result.exit_code == 0, result.output
    found = tracking.figures(tmp_path, {"clip": 12})
    assert found["HOTA"] > 60
    assert found["IDF1"] > 75
    assert found["true_numbers"] == 3


@pytest.mark.slow
def test_what_int8_loses(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    importlib.import_module("int8").main(["--counts", "1", "4", "--scenes", "8", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "int8.json").read_text())["rows"]
    assert [row["calibration"] for row in rows] == [1, 4]
    for row in rows:
        assert row["sure"] > 0
        assert row["agreement"] > 0.8
        assert abs(row["after"] - row["before"]) < 0.1
        assert row["megabytes"]["int8"] < 0.4 * row["megabytes"]["float32"]


def test_the_memory_of_a_long_video(tmp_path: Path):
    pytest.importorskip("av")
    hour = importlib.import_module("hour")
    hour.main(["--minutes", "0.04", "--every", "20", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "hour.json").read_text())
    assert (record["frames"], record["written"]) == (60, 60)
    assert record["at"] == sorted(record["at"])
    assert (record["at"][0], record["at"][-1]) == (0, 59)
    assert len(record["megabytes"]) == 21


@pytest.mark.slow
def test_what_adding_gradients_up_adds_to_a_step(tmp_path: Path):
    importlib.import_module("processes").main(counts="1,2", rounds=1, numbers=1_000_000, results=tmp_path)
    one, two = json.loads((tmp_path / "processes.json").read_text())["rows"]
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["large_seconds"] == one["large_by_arithmetic"] == 0 < two["large_seconds"]
    assert min(one["step_seconds"], two["step_seconds"], two["without_adding_seconds"]) > 0


@pytest.mark.slow
def test_a_large_set_is_opened_twice(tmp_path: Path):
    importlib.import_module("opening").main(images=2_000, boxes=3_000, points=5, folder=tmp_path, results=tmp_path)
    record = json.loads((tmp_path / "opening.json").read_text())
    first, second = record["rows"]
    assert (first["time"], second["time"]) == ("first", "second")
    assert 0 < second["seconds"] < first["seconds"]  # by the index: the folder is gone, the record is there
    assert first["peak_mb"] >= first["imports_mb"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["opening.json"]


@pytest.mark.slow
def test_a_server_under_load(tmp_path: Path):
    """Whatever comes between, each request gets the answer of its own photograph."""
    pytest.importorskip("litserve")
    serving = importlib.import_module("serving")
    serving.main(["--rates", "60", "--seconds", "0.4", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "serving.json").read_text())
    (row,) = record["rows"]
    assert (row["sent"], row["right"], row["wrong"], row["failed"]) == (24, 24, 0, 0)  # at once: in batches
    statuses = {name: status for name, (status, _) in record["refused"].items()}
    assert {statuses[name] for name in ("no base64", "no image", "cut off")} == {400}
    assert {statuses[name] for name in ("too large", "too many pixels")} == {413}
    assert {statuses[name] for name in ("no JSON", "no image given", "score over 1")} == {422}
    assert "photo" not in record["refused"]["no base64"][1]  # what came is not sent back


def test_an_answer_to_another_photograph_is_wrong():
    serving = importlib.import_module("serving")
    one = {"size": [8, 9], "objects": [{"class": "ball", "score": 0.9, "box": [1.0, 2.0, 3.0, 4.0]}]}
    assert serving.same(one, one)
    for change in ({"class": "star"}, {"score": 0.8}, {"box": [1.0, 2.0, 3.0, 5.0]}):
        assert not serving.same(one, {**one, "objects": [{**one["objects"][0], **change}]})
    assert not serving.same(one, {**one, "objects": []})
    assert not serving.same(one, {**one, "size": [9, 8]})


def test_two_names_of_the_model_for_one_class_are_one_detection():
    photographs = importlib.import_module("photographs")
    classes = photographs.shared_classes(["person", "cup", "kite"], ["Mug", "Coffee cup", "Person"])
    assert classes == {"person": [3], "cup": [1, 2]}
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.5, 0.52], [0.6, 0.6, 0.9, 0.9]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "scores": torch.tensor([0.9, 0.8, 0.7])}
    ours = photographs.relabelled(found, list(classes.values()))
    assert (ours["labels"].tolist(), ours["scores"].tolist()) == ([1, 2], pytest.approx([0.7, 0.9]))


@pytest.mark.parametrize("package", ["pycocotools", "faster-coco-eval"])
def test_an_evaluation_that_is_not_ours_is_told_from_the_same_one(package: str):
    peer_data, timing = importlib.import_module("peer_data"), importlib.import_module("timing")
    try:
        pair = peer_data.coco_evaluation(package, images=100, detections=20, classes=21)
    except timing.NotHere as reason:
        pytest.skip(str(reason))
    ours, theirs = pair.ours(), pair.theirs()
    assert "AP of each class within 0.0000" in pair.same(ours, theirs)
    with pytest.raises(AssertionError):
        pair.same(ours, {**theirs, 2: theirs[2] + 0.01})
    with pytest.raises(AssertionError):
        pair.same(ours, {label: ap for label, ap in theirs.items() if label != 2})

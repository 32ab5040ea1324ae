"""The command line as a user meets it: the whole chain, the help, and a plain message for every mistake."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from PIL import Image
from support.bccd import BCCD_ROOT, needs_bccd
from support.commands import call, refused
from support.voc_folder import object_xml, write_annotation, write_voc

from ssdlib.cli import app
from ssdlib.data import TOY_CLASSES, VOCDataset, make_toy_voc

COMMANDS = [
    "data toy",
    "data voc",
    "data check",
    "data convert",
    "data split",
    "data show",
    "train",
    "evaluate",
    "analyse",
    "detect",
    "export",
    "bench",
    "models",
    "priors fit",
]
CAT = object_xml("cat", 1, 1, 40, 30)
NO_AREA = object_xml("cat", 5, 5, 5, 9)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    return make_toy_voc(folder, train=6, val=2, test=4, sides=(96, 140), progress=False)


@pytest.fixture(scope="session")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    result = call("train", "--data", toy, "--out", folder, *QUICK)
    assert result.exit_code == 0, result.output
    assert f"8 images of 'trainval', classes: {', '.join(TOY_CLASSES)}" in result.output
    assert f"model: {folder / 'model.safetensors'}" in result.output
    return folder


ALONE = ("--workers", 0, "--device", "cpu", "--threads", 1)
QUICK = ("--iterations", 2, "--batch-size", 2, *ALONE, "--precision", "float32")


# ---- help ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command: str):
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", result.output)
    assert "Example:" in text
    examples = [shlex.split(line.strip()) for line in text.splitlines() if line.strip().startswith("ssd ")]
    assert any(words[1 : 1 + len(command.split())] == command.split() for words in examples)
    for words in examples:
        about = call(*words[1 : 3 if words[1] in ("data", "priors") else 2], "--help").output
        for option in (word for word in words if word.startswith("--")):
            assert option in about, words


def test_without_a_command_the_help_is_shown():
    for args in ((), ("data",)):
        output = call(*args).output
        assert "Usage" in output
        assert "Traceback" not in output
    assert all(name in call("--help").output for name in ("data", "train", "evaluate", "detect", "export"))


# ---- the chain -------------------------------------------------------------------------------------------------


def test_toy_and_check(tmp_path: Path):
    result = call("data", "toy", tmp_path / "toy", "--train", 2, "--val", 1, "--test", 1, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "2 training, 1 validation and 1 test image in" in result.output
    assert len(VOCDataset(tmp_path / "toy", "train")) == 2
    result = call("data", "check", tmp_path / "toy")
    assert result.exit_code == 0, result.output
    assert result.output.rstrip().endswith("ok")
    assert "refuse" not in refused("data", "toy", tmp_path / "toy", "--train", 3)  # another set is in the way


def test_train_keeps_its_options(run: Path, toy: Path):
    config = json.loads((run / "config.json").read_text())
    assert config["config"]["iterations"] == config["config"]["batch_size"] == 2
    assert config["config"]["precision"] == "float32"
    assert (config["data"], config["image_set"]) == ([str(toy.resolve())], "trainval")
    assert (run / "log.jsonl").is_file()


def test_evaluate(run: Path, tmp_path: Path):
    files = ("--json", tmp_path / "ap.json", "--plot", tmp_path / "curves.png", "--confusion", tmp_path / "taken.svg")
    result = call("evaluate", run, "--workers", 0, "--device", "cpu", "--ap", "11point", *files)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "ap.json").read_text())
    assert (figures["ap"], figures["images"], figures["image_set"], figures["iou_threshold"]) == (
        "11point",
        4,
        "test",
        0.5,
    )
    assert set(figures["AP"]) <= set(TOY_CLASSES)
    assert figures["mAP"] == pytest.approx(sum(figures["AP"].values()) / len(figures["AP"]))
    assert all(re.search(rf"^{name} +\d+ +{ap:.3f}$", result.output, re.M) for name, ap in figures["AP"].items())
    assert f"{figures['mAP']:.3f}   (IoU 0.5, 11point, 4 images)" in result.output
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 300
    assert (tmp_path / "taken.svg").read_text(encoding="utf-8").count("<path") > 20


def test_analyse(run: Path):
    """As the help has it: the data and the folder are those of the run, which stays a run."""
    result = call("analyse", run, "--workers", 0, "--device", "cpu", "--min-score", 0.05, "--examples", 2)
    assert result.exit_code == 0, result.output
    assert f"page: {run / 'analysis' / 'index.html'}" in result.output
    assert json.loads((run / "analysis" / "analysis.json").read_text())["images"] == 4
    assert call("evaluate", run, "--workers", 0, "--device", "cpu").exit_code == 0


def test_detect(run: Path, toy: Path, tmp_path: Path):
    first, second = sorted((toy / "JPEGImages").iterdir())[:2]
    result = call("detect", run, first, "--out", tmp_path / "found.png", "--min-score", 0, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    with Image.open(first) as image, Image.open(tmp_path / "found.png") as found:
        assert image.size == found.size
        limits = image.size * 2
    assert 0 < len(lines) <= 200
    for line in lines:
        assert line.keys() == {"file", "class", "score", "box"}
        assert line["class"] in TOY_CLASSES
        assert all(0 <= edge <= limit + 0.1 for edge, limit in zip(line["box"], limits, strict=True))
    assert [line["score"] for line in lines] == sorted((line["score"] for line in lines), reverse=True)
    result = call("detect", run, first, second, "--out", tmp_path / "all", "--min-score", 1, "--device", "cpu")
    assert (result.exit_code, result.stdout) == (0, "")
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [f"{first.stem}.png", f"{second.stem}.png"]


@pytest.mark.slow
def test_export(run: Path, tmp_path: Path):
    result = call("export", run, "--out", tmp_path / "toy.pt2")
    assert result.exit_code == 0, result.output
    boxes, scores = torch.export.load(tmp_path / "toy.pt2").module()(torch.rand(1, 3, 256, 256))
    assert boxes.shape[:2] == scores.shape[:2]
    assert scores.shape[2] == len(TOY_CLASSES) + 1


# ---- mistakes --------------------------------------------------------------------------------------------------


def test_missing_folders_and_sets(toy: Path, tmp_path: Path):
    out = tmp_path / "run"
    assert "not in the VOC layout" in refused("data", "check", tmp_path / "nowhere")
    assert "not in the VOC layout" in refused("train", "--data", tmp_path / "nowhere", "--out", out)
    message = refused("train", "--data", toy, "--out", out, "--image-set", "holdout")
    assert "no image set 'holdout'; it has test, train, trainval, val" in message
    assert not out.exists()


def test_wrong_figures_and_devices(toy: Path, run: Path, tmp_path: Path):
    train = ("train", "--data", toy, "--out", tmp_path / "run")
    assert "learning_rate must be above 0" in refused(*train, "--learning-rate", -1)
    assert "no device 'abacus'" in refused(*train, "--device", "abacus")
    assert "no device 'cuda:99'" in refused("evaluate", run, "--device", "cuda:99")
    assert refused(*train, "--iterations", 0)
    assert refused(*train, "--preset", "huge")
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(toy: Path, run: Path):
    before = (run / "model.safetensors").read_bytes()
    assert "already holds a run" in refused("train", "--data", toy, "--out", run, *QUICK)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate", "analyse", "detect", "export", "bench", "track"])
def test_no_checkpoint(toy: Path, tmp_path: Path, command: str):
    if command == "track":
        pytest.importorskip("scipy")  # of the extra: its absence is told first
    rest = {
        "evaluate": ["--data", toy],
        "analyse": ["--data", toy, "--out", tmp_path / "why"],
        "detect": [toy / "a.jpg"],
        "export": ["--out", tmp_path / "x.pt2"],
        "bench": [],
        "track": [toy / "a.mp4"],
    }[command]
    assert "no checkpoint at" in refused(command, tmp_path / "nowhere", *rest)
    assert "no checkpoint at" in refused(command, tmp_path, *rest)  # a folder without a run
    bad = tmp_path / "bad.safetensors"
    bad.write_text("hello")
    assert "no readable safetensors file" in refused(command, bad, *rest)


def test_a_bare_checkpoint_must_be_told_its_data(run: Path, toy: Path, tmp_path: Path):
    bare = shutil.copy(run / "model.safetensors", tmp_path / "bare.safetensors")
    assert "name it with --data" in refused("evaluate", bare, "--device", "cpu")
    assert call("evaluate", bare, "--data", toy, "--workers", 0, "--device", "cpu").exit_code == 0


def test_files_that_cannot_be_read_or_written(run: Path, toy: Path, tmp_path: Path):
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    evaluate = ("evaluate", run, "--workers", 0, "--device", "cpu")
    assert "text.jpg" in refused(*evaluate, "--json", text / "below_a_file.json")
    assert "not supported" in refused(*evaluate, "--plot", tmp_path / "curves.nonsense")


def test_other_classes_than_those_of_the_model(run: Path, tmp_path: Path):
    root = write_voc(tmp_path / "cats", {"test": ["a"]}, {"a": [CAT]})
    assert "class 'cat' is not among" in refused("evaluate", run, "--data", root, "--workers", 0, "--device", "cpu")


def test_check_names_broken_files_and_ends_with_1(tmp_path: Path):
    root = write_voc(tmp_path, {"train": ["a", "b", "c"]}, {"a": [CAT], "b": [NO_AREA]})
    (root / "Annotations" / "c.xml").write_text("<annotation>")
    result = call("data", "check", root)
    assert result.exit_code == 1
    assert "c.xml" in result.output
    assert "Annotations/b.xml, object 0: zero area, refused" in result.output


def test_refused_objects_are_one_plain_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = write_voc(tmp_path / "cats", {"trainval": ["a", "b"]}, {"a": [CAT, NO_AREA], "b": [CAT]})
    args = ["train", "--data", root, "--out", tmp_path / "run", *QUICK]
    assert app([str(arg) for arg in args], standalone_mode=False) in (None, 0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "refused" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: ")
    assert "set 'trainval': refused 1 (zero area 1); `ssd data check` lists them" in lines[0]
    assert "DataWarning" not in lines[0]


def test_a_hostile_class_name_does_no_harm(tmp_path: Path):
    name = "[red]$\\frac{$ <b>{0}</b>"
    cat = object_xml(name.replace("<", "&lt;"), 1, 1, 40, 30)
    root = write_voc(tmp_path / "odd", {"trainval": ["a", "b"], "test": ["c"]}, {i: [cat] for i in "abc"})
    out = tmp_path / "run"
    result = call("train", "--data", root, "--out", out, *QUICK)
    assert result.exit_code == 0, result.output
    assert f"classes: {name}" in result.output
    files = ("--json", tmp_path / "ap.json", "--plot", tmp_path / "curves.png")
    result = call("evaluate", out, "--workers", 0, "--device", "cpu", *files)
    assert result.exit_code == 0, result.output
    assert name in result.output
    assert list(json.loads((tmp_path / "ap.json").read_text())["AP"]) == [name]
    image = root / "JPEGImages" / "c.png"
    result = call("detect", out, image, "--min-score", 0, "--out", tmp_path / "found.png", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output.splitlines()[0])["class"] == name


def test_an_unknown_class_or_a_broken_annotation_stops_training(tmp_path: Path):
    root = write_voc(tmp_path / "cats", {"trainval": ["a"]}, {"a": [CAT]})
    write_annotation(root, "a", ["<object>"])
    assert "a.xml" in refused("train", "--data", root, "--out", tmp_path / "run", *QUICK)
    assert not (tmp_path / "run").exists()


@needs_bccd
def test_check_of_the_blood_cells():
    result = call("data", "check", BCCD_ROOT)
    assert result.exit_code == 1
    refusals = [line.strip() for line in result.output.splitlines() if "zero area, refused" in line]
    assert len(refusals) == 2
    assert all(re.match(r"Annotations/BloodImage_\d+\.xml, object \d+: ", line) for line in refusals)

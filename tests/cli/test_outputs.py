"""Nothing of the user's is lost: what a command would write over is refused first, and a full disk leaves no ruins."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from PIL import Image
from support.commands import call, refused
from support.voc_folder import object_xml, write_image, write_voc

from ssdlib.cli import detect, evaluate, export, train
from ssdlib.cli.common import plain, printable
from ssdlib.cli.outputs import replaced_folder, require_outside, require_writable
from ssdlib.data import sample_root
from ssdlib.engine import TrainConfig, run_folder
from ssdlib.model import SSD
from ssdlib.zoo.checkpoint import demo_model, save_model

CPU = ("--workers", 0, "--device", "cpu")
QUICK = (*CPU, "--iterations", 1, "--batch-size", 1, "--threads", 1, "--precision", "float32")
CAT = object_xml("cat", 1, 1, 31, 21)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that is finished."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = demo_model()
    entries = {"config": asdict(TrainConfig()), "classes": list(model.classes), "images": 1, "fingerprint": "0" * 16}
    (folder / "config.json").write_text(json.dumps({**entries, "data": [str(sample_root())]}))
    (folder / "log.jsonl").write_text("{}\n")
    save_model(model, folder / "model.safetensors")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Three photographs of a user."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / name for name in ("0.png", "1.png", "one.jpg")]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 30), (90 * number, 10, 20)).save(path)
    return paths


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a network is run, or trained."""
    for module, name in ((SSD, "predict"), (evaluate, "detect_dataset"), (export, "export_model"), (train, "train")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("the network was run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- outputs that are inputs -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_killed_call_left_goes_with_the_next_one(tmp_path: Path):
    asked = (tmp_path / "why", "mark", "ours", {"mark", "page"})

    def made(text: str) -> None:
        with replaced_folder(*asked) as folder:
            (folder / "mark").write_text("ours")
            (folder / "page").write_text(text)
            if text == "half":
                os.kill(os.getpid(), signal.SIGKILL)

    made("first")
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    number = os.fork()
    if number == 0:
        try:
            made("half")
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(number, 0)[1]) == signal.SIGKILL
    assert (tmp_path / "why" / "page").read_text() == "first"
    (left,) = set(tmp_path.iterdir()) - {tmp_path / "why"}
    past = time.time() - 60
    os.utime(left / ".lock", (past, past))
    made("second")
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    assert {path.name: path.read_text() for path in (tmp_path / "why").iterdir()} == {"mark": "ours", "page": "second"}


def test_detect_never_replaces_a_photograph(run: Path, photos: list[Path], tmp_path: Path, no_network: None):
    before = contents(tmp_path)
    folder = photos[0].parent
    assert "0.png would replace" in refused("detect", run, *photos[:2], "--out", folder)
    assert "one.jpg would replace" in refused("detect", run, photos[2], "--out", photos[2])
    assert "0.png would replace" in refused("detect", run, photos[0], "--out", folder)  # into the folder
    assert "name a folder" in refused("detect", run, *photos, "--out", photos[2])
    assert "name a folder" in refused("detect", run, *photos, "--out", tmp_path / "new.jpg")
    (tmp_path / "link").symlink_to(folder)
    before |= {f"link/{path.name}": path.read_bytes() for path in photos if (tmp_path / "link" / path.name).is_file()}
    assert "0.png would replace" in refused("detect", run, *photos[:2], "--out", tmp_path / "link")
    os.link(photos[2], tmp_path / "hard.jpg")
    assert "hard.jpg would replace" in refused("detect", run, photos[2], "--out", tmp_path / "hard.jpg")
    assert {name: data for name, data in contents(tmp_path).items() if name.startswith(("photos", "run"))} == {
        name: data for name, data in before.items() if name.startswith(("photos", "run"))
    }


def test_detect_never_replaces_what_lies_beside_the_photographs(run: Path, photos: list[Path], no_network: None):
    """1.png is the user's as well, though only one.jpg and 0.png are looked at."""
    folder = photos[0].parent
    shutil.copy(photos[2], folder / "1.jpg")
    before = contents(folder)
    message = refused("detect", run, folder / "1.jpg", photos[2], "--out", folder)
    assert "1.png is there already, beside the images" in message
    assert contents(folder) == before


def test_pictures_of_an_earlier_call_are_replaced(run: Path, photos: list[Path], tmp_path: Path):
    for _ in range(2):
        result = call("detect", run, *photos, "--out", tmp_path / "found", "--device", "cpu")
        assert result.exit_code == 0, result.output
        result = call("detect", run, photos[0], "--out", tmp_path / "found.png", "--device", "cpu")
        assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["0.png", "1.png", "one.png"]
    result = call("detect", run, photos[0], "--out", tmp_path / "found", "--device", "cpu")  # a folder that is there
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "name", ["model.safetensors", "best.safetensors", "config.json", "log.jsonl", "state.pt", "run.lock"]
)
def test_no_command_replaces_a_file_of_a_run(
    name: str, run: Path, photos: list[Path], tmp_path: Path, no_network: None
):
    other = shutil.copytree(run, tmp_path / "other")
    before = contents(tmp_path)
    for folder in (run, other):
        assert "would replace a file of the run" in refused("export", run, "--out", folder / name)
        assert "would replace a file of the run" in refused("evaluate", run, *CPU, "--json", folder / name)
    assert refused("detect", run, photos[0], "--out", run / name)  # it is no picture's name either
    assert contents(tmp_path) == before


def test_export_never_replaces_its_checkpoint(run: Path, tmp_path: Path, no_network: None):
    bare = Path(shutil.copy(run / "model.safetensors", tmp_path / "bare.safetensors"))
    (tmp_path / "link.pt2").symlink_to(bare)
    before = bare.read_bytes()
    for out in (bare, tmp_path / "link.pt2"):
        assert f"would replace {bare}" in refused("export", bare, "--out", out).replace("\n", "")
    assert "would replace" in refused("evaluate", bare, "--data", sample_root(), *CPU, "--json", bare)
    assert bare.read_bytes() == before


def test_evaluate_never_replaces_its_data(run: Path, tmp_path: Path, no_network: None):
    root = write_voc(tmp_path / "cats", {"test": ["a"]}, {"a": [CAT]})
    model = demo_model()
    model.classes = ("cat", *model.classes[1:])
    save_model(model, run / "model.safetensors")
    before = contents(root)
    asked = ("evaluate", run, "--data", root, *CPU)
    image = root / "JPEGImages" / "a.png"
    for option in ("--plot", "--confusion"):
        for picture in ("a.png", "of_another_set.png"):
            assert "which is read" in refused(*asked, option, image.with_name(picture))
    for file in ("Annotations/a.xml", "Annotations/new.json", "ImageSets/Main/test.txt"):
        assert "which is read" in refused(*asked, "--json", root / file)
    same = tmp_path / "same.png"
    assert "are the same file" in refused(*asked, "--json", same, "--plot", tmp_path / "cats" / ".." / "same.png")
    assert "are the same file" in refused(*asked, "--plot", same, "--confusion", same)
    os.link(image, tmp_path / "alias.png")
    assert f"would replace {image}" in refused(*asked, "--confusion", tmp_path / "alias.png").replace("\n", "")
    assert contents(root) == before


def test_the_annotations_of_coco_are_kept(tmp_path: Path):
    with pytest.raises(ValueError, match="which is read"):
        require_outside(tmp_path / "annotations" / "instances_val.json", [tmp_path])
    require_outside(tmp_path / "ap.json", [tmp_path])


# ---- outputs that cannot be written ----------------------------------------------------------------------------


def test_names_and_folders_are_checked_before_the_network_runs(
    run: Path, photos: list[Path], tmp_path: Path, no_network: None
):
    file = photos[0]
    assert "found cannot be written: the name has no ending" in refused(
        "detect", run, file, "--out", tmp_path / "found"
    )
    assert "the ending .nonsense is not supported" in refused("detect", run, file, "--out", tmp_path / "x.nonsense")
    assert "curves cannot be written: the name has no ending" in refused(
        "evaluate", run, *CPU, "--plot", tmp_path / "curves"
    )
    assert "mistakes cannot be written: the name has no ending" in refused(
        "evaluate", run, *CPU, "--confusion", tmp_path / "mistakes"
    )
    for command in (("evaluate", run, *CPU, "--json"), ("export", run, "--out"), ("detect", run, file, "--out")):
        assert "0.png is no folder" in refused(*command, file / "below.png")
    assert "is a folder" in refused("evaluate", run, *CPU, "--json", tmp_path)
    assert "is a folder" in refused("export", run, "--out", tmp_path)
    assert ".part" not in "".join(contents(tmp_path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written_to(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="does not let you"):
        require_writable(tmp_path / "a.json")


def test_an_empty_text_is_no_path(run: Path, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    for args in (
        ("train", "--data", sample_root(), *QUICK, "--out", ""),
        ("train", "--data", "", "--out", tmp_path / "new"),
        ("export", run, "--out", " "),
        ("detect", run, photos[0], "--out", ""),
        ("detect", "", photos[0]),
        ("evaluate", run, *CPU, "--json", ""),
        ("data", "toy", "", "--train", 1),
        ("data", "check", ""),
    ):
        assert "an empty text is no path" in refused(*args)
    assert contents(tmp_path) == before


# ---- a full disk -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk(run: Path, photos: list[Path], small_disk: Path):
    """Not even the first state, the program or the picture fits: a plain message, and nothing half stays."""
    train_out, program, picture = small_disk / "new", small_disk / "toy.pt2", small_disk / "noise.bmp"
    Image.effect_noise((500, 500), 90).convert("RGB").save(photos[0])
    assert f"no space to write {program}" in refused("export", run, "--out", program).replace("\n", "")
    message = refused("detect", run, photos[0], "--out", picture, "--device", "cpu")
    assert f"no space to write {picture}" in message.replace("\n", "")
    assert list(small_disk.iterdir()) == []
    message = refused("train", "--data", sample_root(), "--image-set", "train", "--out", train_out, *QUICK)
    assert f"no space to write {train_out / 'state.pt'}" in message.replace("\n", "")
    assert sorted(path.name for path in train_out.iterdir()) == ["config.json", "log.jsonl"]


def test_no_space_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "add_to_log", full)
    message = refused("train", "--data", sample_root(), "--image-set", "train", "--out", tmp_path / "new", *QUICK)
    assert f"no space to write {tmp_path / 'new' / 'log.jsonl'}" in message.replace("\n", "")


# ---- bad files and messages ------------------------------------------------------------------------------------


def test_detect_goes_on_after_a_bad_file(run: Path, photos: list[Path], tmp_path: Path):
    bad, missing = tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    bad.write_text("no image")
    images = (bad, photos[0], missing, photos[1])
    result = call("detect", run, *images, "--out", tmp_path / "found", "--device", "cpu")
    assert result.exit_code == 1
    assert "2 of 4 images cannot be read:" in result.output
    assert re.search(r"^  .*bad\.jpg: cannot be decoded", result.output, re.M)
    assert re.search(r"^  .*missing\.jpg", result.output, re.M)
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["0.png", "1.png"]


def test_detect_does_not_go_on_with_a_damaged_detector(run: Path, photos: list[Path], monkeypatch: pytest.MonkeyPatch):
    damaged = demo_model()
    damaged.class_head.convolutions[0].bias.data[0] = torch.nan
    monkeypatch.setattr(detect, "model_of", lambda *_: damaged)
    assert "predictions are not finite" in refused("detect", run, *photos, "--device", "cpu")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_damaged_image_under_workers_is_one_line(run: Path, tmp_path: Path):
    root = write_voc(tmp_path / "cats", {"trainval": ["a", "b"], "test": ["a", "b"]}, {"a": [CAT], "b": [CAT]})
    image = root / "JPEGImages" / "b.png"
    image.write_bytes(image.read_bytes()[:60])
    out = tmp_path / "new"
    model = demo_model()
    model.classes = ("cat", *model.classes[1:])
    save_model(model, run / "model.safetensors")
    for args in (
        ("train", "--data", root, "--out", out, *QUICK, "--batch-size", 2, "--workers", 1),
        ("evaluate", run, "--data", root, *CPU, "--workers", 1),
    ):
        message = refused(*args)
        (line,) = (line for line in message.splitlines() if "error" in line.lower())
        assert line.startswith(f"error: {image}: cannot be decoded: ")
        assert "DataLoader" not in message


def test_the_message_of_a_worker():
    trace = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File x\n"
    trace += "KeyError: 'a'\n\nDuring handling of the above:\n\n  File y\n"
    assert plain(ValueError(f"{trace}ValueError: a.jpg: no image\nat all\n")) == "a.jpg: no image\nat all"
    assert plain(ValueError(f"{trace}ssdlib.x.OddError: odd: very\n")) == "odd: very"
    assert plain(ValueError("two: words")) == "two: words"


def test_what_a_name_may_not_do_to_the_terminal(run: Path, tmp_path: Path):
    assert printable("a\x1b[31mb\rc\udc80 é\n") == "a\\x1b[31mb\\rc\\udc80 é\n"
    name = "evil\x1b]0;title\x07.jpg"
    result = call("detect", run, tmp_path / name, "--device", "cpu")
    assert result.exit_code == 1
    assert "evil\\x1b]0;title\\x07.jpg" in result.output
    assert "\x1b]0" not in result.output
    assert "\x1b]0" not in refused("train", "--data", tmp_path / name, "--out", tmp_path / "new")


def test_nothing_is_annotated(tmp_path: Path, no_network: None):
    empty = write_voc(tmp_path / "empty", {"trainval": ["a", "b"]}, {})
    message = refused("train", "--data", empty, "--out", tmp_path / "new", *QUICK)
    assert f"{empty.resolve()}: no object is annotated in the set 'trainval'" in message.replace("\n", "")
    half = write_voc(tmp_path / "half", {"trainval": ["a"], "test": ["b"]}, {"b": [CAT]})
    message = refused("train", "--data", half, "--out", tmp_path / "new", *QUICK)
    assert "no object is annotated in the set 'trainval'" in message
    assert not (tmp_path / "new").exists()


def test_values_out_of_range_are_refused_before_the_run(
    run: Path, photos: list[Path], tmp_path: Path, no_network: None
):
    started = ("train", "--data", sample_root(), "--image-set", "train", "--out", tmp_path / "new")
    assert f"seed must be at least 0 and below 2**64, got {2**64}" in refused(*started, *QUICK, "--seed", 2**64)
    assert "no device 'meta'" in refused(*started, "--device", "meta")
    assert "no device 'meta'" in refused("detect", run, photos[0], "--device", "meta")
    for iou in (1.5, 0, -1, "nan"):
        assert "--iou must be above 0 and at most 1" in refused("evaluate", run, *CPU, "--iou", iou)
    assert not (tmp_path / "new").exists()


def test_the_largest_seed(tmp_path: Path):
    args = ("--data", sample_root(), "--image-set", "train", "--out", tmp_path / "new", *QUICK)
    result = call("train", *args, "--seed", 2**64 - 1)
    assert result.exit_code == 0, result.output


def test_an_absurd_learning_rate_leaves_no_model(tmp_path: Path):
    args = ("--data", sample_root(), "--image-set", "train", "--out", tmp_path / "new", *QUICK)
    message = refused("train", *args, "--learning-rate", "1e38")
    assert "after step 1" in message
    assert not (tmp_path / "new" / "model.safetensors").exists()


def test_images_of_one_name_have_pictures_of_their_own(run: Path, tmp_path: Path):
    images = [write_image(tmp_path / folder, "1.png") for folder in ("a", "b")]
    result = call("detect", run, *images, "--out", tmp_path / "found", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "found").iterdir())) == 2

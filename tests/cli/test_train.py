"""`ssd train`: presets, options and settings, several folders, resuming, validation, TensorBoard, and every mistake."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import call, refused, torchrun
from support.small_run import log_of
from support.voc_folder import object_xml, write_voc
from torchvision.models import mobilenet_v2

from ssdlib import training
from ssdlib.data import TOY_CLASSES, make_toy_voc
from ssdlib.engine import precision, run, run_folder
from ssdlib.engine.presets import PRESETS
from ssdlib.model import TINY
from ssdlib.priors import SSD300_VOC, PriorRecipe
from ssdlib.zoo.checkpoint import load_model

ALONE = ("--workers", 0, "--device", "cpu", "--threads", 1)
QUICK = ("--iterations", 2, "--batch-size", 2, *ALONE, "--precision", "float32")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    return make_toy_voc(folder, train=6, val=2, test=2, sides=(96, 140), progress=False)


def trained(*args: object) -> str:
    result = call("train", *args)
    assert result.exit_code == 0, result.output
    return result.output


def config_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())["config"]


# ---- presets and settings --------------------------------------------------------------------------------------


def test_list_of_the_presets():
    output = trained("--list")
    assert all(f"{name}: " in output for name in PRESETS)
    assert output.count("hardware: ") == output.count("time: ") == output.count("score: ") == len(PRESETS)
    assert "77.2" in output
    assert "not measured with ssdlib" in output


def test_options_and_settings(toy: Path, tmp_path: Path):
    settings = ("--set", "momentum=0.7", "--set", "optimizer=sgd", "--set", "augmentation.crop=0.5")
    out = tmp_path / "run"
    output = trained("--preset", "tiny_few", "--data", toy, "--out", out, *QUICK, "--seed", 5, *settings)
    assert f"8 images of 'trainval', classes: {', '.join(TOY_CLASSES)}" in output
    assert f"model: {out / 'model.safetensors'}" in output
    config = config_of(out)
    assert (config["iterations"], config["batch_size"], config["seed"], config["precision"]) == (2, 2, 5, "float32")
    assert (config["momentum"], config["optimizer"], config["augmentation"]["crop"]) == (0.7, "sgd", 0.5)
    assert config["augmentation"]["zoom_out"] == PRESETS["tiny_few"].augmentation.zoom_out
    assert config["learning_rate"] == PRESETS["tiny_few"].learning_rate
    entries = json.loads((out / "config.json").read_text())
    assert (entries["data"], entries["image_set"], entries["weights"]) == ([str(toy.resolve())], "trainval", None)


def test_several_folders(toy: Path, tmp_path: Path):
    other = make_toy_voc(tmp_path / "other", train=6, val=1, test=0, seed=3, sides=(96, 140), progress=False)
    output = trained("--data", toy, "--data", other, "--out", tmp_path / "run", *QUICK, "--cache")
    assert "15 images of 'trainval'" in output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == [str(toy.resolve()), str(other)]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--set", "speed=3"), "there is no setting 'speed'; there are iterations"),
        (("--set", "momentum=high"), "momentum takes a number, got 'high'"),
        (("--set", "momentum"), "write name=value"),
        (("--set", "momentum=2"), "momentum must be at least 0 and below 1, got 2.0"),
        (("--learning-rate", -1), "learning_rate must be above 0, got -1.0"),
        (("--set", "architecture=ssd9000"), "no architecture 'ssd9000'; there are ssd300_vgg16"),
        (("--preset", "huge"), "huge"),
        (("--iterations", 0), "--iterations"),
        (("--val-set", "holdout"), "no image set 'holdout'"),
        (("--val-set", "val"), "2 of the 2 validation images are training images, too"),
        (("--freeze", "neck"), "this network has no part 'neck'"),
        (("--set", "patience=2"), "patience needs validation images"),
        (("--precision", "int8"), "int8"),
        (("--init", "nowhere"), "no checkpoint at"),
        (("--init", "a", "--weights", "b"), "give one of them"),
        (("--set", "pretrained=true"), "no weights for ImageNet for ssd_tiny"),
        (("--preset", "paper", "--weights", "nowhere.pth"), "nowhere.pth"),
    ],
)
def test_mistakes(args: tuple[object, ...], message: str, toy: Path, tmp_path: Path):
    assert message in refused("train", "--data", toy, "--out", tmp_path / "run", "--device", "cpu", *args)
    assert not (tmp_path / "run").exists()


def test_without_data(tmp_path: Path):
    assert "say with --data on which images to train" in refused("train", "--out", tmp_path / "run")
    assert "say with --data on which images to train" in refused("train", "--out", tmp_path / "run", "--resume")


def test_a_loss_that_explodes_names_the_files(toy: Path, tmp_path: Path):
    args = ("--iterations", 9, "--set", "optimizer=sgd", "--set", "max_grad_norm=none", "--set", "warmup=0")
    message = refused(
        "train", "--data", toy, "--out", tmp_path, *QUICK, *args, "--learning-rate", "1e30", "--save-every", 1
    )
    assert "in step 2, and the weights were left as they were" in message
    assert message.count(str(toy.resolve() / "JPEGImages")) == 2
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


# ---- resume ----------------------------------------------------------------------------------------------------


def ctrl_c_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = training.train_step, 0

    def interrupted(*args: Any) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(training, "train_step", interrupted)


def test_ctrl_c_and_resume(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    args = ("--data", toy, *QUICK, "--iterations", 5, "--seed", 3, "--val-set", "test", "--val-every", 1)
    trained("--out", tmp_path / "whole", *args)
    ctrl_c_in_step(3, monkeypatch)
    out = tmp_path / "run"
    stopped = call("train", "--out", out, *args)
    assert stopped.exit_code == 130
    assert "stopped after step 3" in stopped.output
    assert f"go on with: ssd train --out {out} --resume" in stopped.output.replace("\n", "")
    assert "another one" in refused("train", "--out", out, *args, "--resume", "--seed", 4)
    assert "learning_rate=0.002, not 0.001" in refused("train", "--out", out, "--resume", "--set", "learning_rate=1e-3")
    assert "already holds a run" in refused("train", "--out", out, *args)
    trained("--out", out, "--resume", "--workers", 0, "--device", "cpu", "--threads", 1)
    assert log_of(out) == log_of(tmp_path / "whole")
    assert all("mAP" in line for line in log_of(out))  # what is measured is taken from the run, too
    a, b = (load_model(run / "model.safetensors").state_dict() for run in (out, tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)
    # once more: it is finished
    before = (out / "model.safetensors").read_bytes()
    assert f"the run in {out} is finished" in trained("--out", out, "--resume", *args)
    assert (out / "model.safetensors").read_bytes() == before


def test_resume_with_other_data(toy: Path, tmp_path: Path):
    other = make_toy_voc(tmp_path / "other", train=6, val=3, test=0, seed=3, sides=(96, 140), progress=False)
    trained("--data", toy, "--out", tmp_path / "run", *QUICK)
    resumed = ("train", "--out", tmp_path / "run", *QUICK, "--resume")
    assert "number of images 8, not 9" in refused(*resumed, "--data", other)
    assert "number of images 8, not 6" in refused(*resumed, "--image-set", "train")
    cats = write_voc(tmp_path / "cats", {"trainval": list("abcdefgh")}, {"a": [object_xml("cat", 1, 1, 40, 30)]})
    assert "not ['cat']" in refused(*resumed, "--data", cats)


@pytest.mark.slow
def test_a_command_that_is_killed_goes_on(toy: Path, tmp_path: Path):
    """The real command, killed from outside as soon as it has written its first state."""
    out = tmp_path / "run"
    args = ["--data", toy, "--out", out, *QUICK, "--iterations", 60, "--save-every", 1]
    command = [sys.executable, "-m", "ssdlib", "train", *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (out / run_folder.STATE).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert "goes on" not in trained("--out", out, "--resume", "--workers", 0, "--device", "cpu", "--threads", 1)
    trained(*args[:2], "--out", tmp_path / "whole", *args[4:])
    assert log_of(out) == log_of(tmp_path / "whole")
    a, b = (load_model(run / "model.safetensors").state_dict() for run in (out, tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.slow
def test_two_processes(toy: Path, tmp_path: Path):
    args = [str(arg) for arg in ("--data", toy, "--out", tmp_path / "run", *QUICK, "--val-set", "test")]
    done = torchrun(tmp_path, ["-m", "ssdlib", "train", *args])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("8 images of 'trainval'") == done.stdout.count("model: ") == 1
    assert done.stderr.count("training: 100%") >= 1
    (line,) = log_of(tmp_path / "run")
    assert line["step"] == 2
    assert 0 <= line["mAP"] <= 1


# ---- validation and TensorBoard --------------------------------------------------------------------------------


def test_validation(toy: Path, tmp_path: Path):
    """Every second epoch of 4 steps, and the last one."""
    args = ("--data", toy, "--out", tmp_path, *QUICK, "--iterations", 19)
    output = trained(*args, "--val-set", "test", "--val-every", 2)
    assert "2 validation images of 'test', measured every 2 epochs" in output
    assert "precision: float32" in output
    assert "best: best.safetensors, of step" in output
    lines = log_of(tmp_path)
    assert [(line["epoch"], "mAP" in line) for line in lines] == [(1, 0), (2, 1), (3, 0), (4, 1), (5, 1)]
    assert all(0 <= line["mAP"] <= 1 and line["val_confidence"] > 0 for line in lines if "mAP" in line)
    evaluated = call("evaluate", tmp_path, "--image-set", "test", "--device", "cpu")
    assert "weights: best.safetensors, of step " in evaluated.output
    (tmp_path / "best.safetensors").unlink()
    evaluated = call("evaluate", tmp_path, "--image-set", "test", "--device", "cpu")
    assert "weights: model.safetensors, the last of the run" in evaluated.output
    (tmp_path / "model.safetensors").unlink()
    assert "has no weights to use yet" in refused("evaluate", tmp_path, "--image-set", "test", "--device", "cpu")


def test_validation_in_a_folder_of_its_own(toy: Path, tmp_path: Path):
    other = make_toy_voc(tmp_path / "other", train=1, val=2, test=1, seed=5, sides=(96, 140), progress=False)
    out = tmp_path / "run"
    output = trained("--data", toy, "--out", out, *QUICK, "--iterations", 4, "--val-data", other)
    assert "2 validation images of 'val', measured after each epoch" in output
    entries = json.loads((out / "config.json").read_text())
    assert (entries["val_data"], entries["val_set"], entries["val_every"]) == ([str(other)], "val", 1)
    cats = write_voc(tmp_path / "cats", {"val": ["a"]}, {"a": [object_xml("cat", 1, 1, 40, 30)]})
    message = refused("train", "--data", toy, "--out", tmp_path / "new", *QUICK, "--val-data", cats)
    assert "cat" in message
    assert not (tmp_path / "new").exists()


# ---- the start from a detector ---------------------------------------------------------------------------------


def test_init_from_a_run_of_other_classes(toy: Path, tmp_path: Path):
    trained("--data", toy, "--out", tmp_path / "first", *QUICK)
    cats = write_voc(tmp_path / "cats", {"trainval": ["a", "b"]}, {"a": [object_xml("cat", 1, 1, 40, 30)]})
    out = tmp_path / "second"
    args = ("--data", cats, "--out", out, *QUICK, "--init", tmp_path / "first", "--freeze", "backbone")
    assert "no class kept; new: class_head" in trained("--preset", "paper", *args)
    entries = json.loads((out / "config.json").read_text())
    assert entries["init"] == str((tmp_path / "first").resolve())
    config = entries["config"]
    assert (config["architecture"], config["pretrained"], config["freeze"]) == ("ssd_tiny", False, "backbone")
    message = refused("train", "--out", out, "--resume", "--device", "cpu", "--init", tmp_path)
    assert "is another one: it started from" in message
    first, second = (load_model(run / "model.safetensors").state_dict() for run in (tmp_path / "first", out))
    assert all(torch.equal(second[name], first[name]) for name in first if name.startswith("backbone."))


def test_preset_finetune_takes_the_network_of_the_detector(toy: Path, tmp_path: Path):
    """By itself it is another network, which starts from ImageNet."""
    trained("--data", toy, "--out", tmp_path / "first", *QUICK)
    out = tmp_path / "second"
    trained("--preset", "finetune", "--data", toy, "--out", out, *QUICK, "--init", tmp_path / "first")
    config = json.loads((out / "config.json").read_text())["config"]
    assert (config["architecture"], config["pretrained"], config["freeze"]) == ("ssd_tiny", False, "early")


def test_preset_finetune_starts_from_imagenet_and_is_advised_as_fine_tuning(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = mobilenet_v2(weights=None).state_dict()
    monkeypatch.setattr(run, "classifier_weights", lambda *_: weights)
    said = trained("--preset", "finetune", "--data", toy, "--out", tmp_path / "run", *QUICK)
    assert "about 660 (--iterations 660)" in said  # by the rule of fine-tuning; by that of the paper 40,000
    model = load_model(tmp_path / "run" / "model.safetensors")
    assert model.architecture == "ssd300_mobilenet_v2_bn"
    stem = "features.0.0.weight"
    assert torch.equal(model.backbone.state_dict()[stem], weights[stem])


# ---- priors of one's own ---------------------------------------------------------------------------------------


OWN = {**TINY.to_dict(), "name": "mine", "ratios": [[1.0, [1.5, 0.2], "extra"]] * 5}


def test_priors_of_ones_own(toy: Path, tmp_path: Path):
    """They are the run's and the checkpoint's, the run goes on with them alone, and a detector gives only features."""
    recipe, file, out = PriorRecipe.from_dict(OWN), tmp_path / "priors.json", tmp_path / "run"
    file.write_text(json.dumps(OWN))
    args = ("--data", toy, *QUICK, "--seed", 1)
    assert f"priors: mine, {recipe.num_priors} of them" in trained("--out", out, *args, "--priors", file)
    entries = json.loads((out / "config.json").read_text())
    assert PriorRecipe.from_dict(entries["priors"]) == recipe
    assert load_model(out / "model.safetensors").recipe == recipe
    file.write_text(json.dumps({**OWN, "scales": [0.07, 0.16, 0.3, 0.48, 0.66, 0.8]}))
    message = refused("train", "--out", out, *args, "--priors", file, "--resume")
    assert "it has the priors 'mine', not 'mine', though the names are the same" in " ".join(message.split())
    assert "is finished" in trained("--out", out, *args, "--resume")  # the recipe is taken from the run

    started = trained("--out", tmp_path / "tuned", *args, "--init", tmp_path / "run", "--priors", file)
    assert "no class kept; new: class_head.convolutions.0" in started
    assert "offset_head.convolutions.4" in started
    first, tuned = (load_model(tmp_path / name / "model.safetensors") for name in ("run", "tuned"))
    assert tuned.recipe.scales[-1] == 0.8
    assert first.recipe.scales[-1] == 0.9
    kept = trained("--out", tmp_path / "kept", *args, "--init", tmp_path / "run")
    assert "new: nothing" in kept
    assert load_model(tmp_path / "kept" / "model.safetensors").recipe == recipe


def test_a_run_of_its_own_priors_goes_on(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "priors.json"
    file.write_text(json.dumps(OWN))
    args = ("--data", toy, *QUICK, "--iterations", 4, "--seed", 3, "--priors", file)
    trained("--out", tmp_path / "whole", *args)
    ctrl_c_in_step(2, monkeypatch)
    assert call("train", "--out", tmp_path / "run", *args).exit_code == 130
    file.unlink()
    trained("--out", tmp_path / "run", "--resume", *ALONE)
    a, b = (load_model(tmp_path / run / "model.safetensors") for run in ("run", "whole"))
    assert a.recipe == b.recipe == PriorRecipe.from_dict(OWN)
    assert all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[1]", "priors.json is no JSON object, but [1]"),
        ("{", "priors.json is no JSON object: Expecting"),
        (json.dumps({**OWN, "sizes": []}), "priors.json: there is no field 'sizes'; a recipe has name, image_size"),
        (json.dumps({**OWN, "scales": 1}), "priors.json: scales must be a list, got 1"),
        (json.dumps({**OWN, "ratios": [[-1.0]] * 5}), "priors.json: recipe 'mine': ratios has -1.0"),
        (json.dumps({k: v for k, v in OWN.items() if k != "ratios"}), "priors.json: the field ratios is missing"),
        (
            json.dumps(SSD300_VOC.to_dict()),
            "priors.json does not fit ssd_tiny: backbone with 5 feature",
        ),
        (json.dumps({**OWN, "map_sizes": [30, 16, 8, 4, 2]}), "recipe 'mine' is for maps of (30, 16, 8, 4, 2) cells"),
    ],
)
def test_priors_that_do_not_fit(recipe: str, message: str, toy: Path, tmp_path: Path):
    (tmp_path / "priors.json").write_text(recipe)
    said = refused(
        "train", "--data", toy, "--out", tmp_path / "run", "--device", "cpu", "--priors", tmp_path / "priors.json"
    )
    assert message in " ".join(said.split())
    assert not (tmp_path / "run").exists()


def test_tensorboard(toy: Path, tmp_path: Path):
    pytest.importorskip("tensorboard")
    args = ("--data", toy, "--out", tmp_path, *QUICK, "--iterations", 8, "--tensorboard", "--val-set", "test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TensorBoard's own imports
        trained(*args, "--val-every", 1)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "events"))
        events.Reload()
    lines = log_of(tmp_path)
    tags = {"loss/localization", "loss/confidence", "gradient_norm", "learning_rate", "images_per_second", "waiting"}
    assert set(events.Tags()["scalars"]) == tags | {"mAP", "loss/val_localization", "loss/val_confidence"}
    points = [(point.step, point.value) for point in events.Scalars("loss/confidence")]
    assert points == [(line["step"], pytest.approx(line["confidence"])) for line in lines]
    assert events.Tags()["images"] == ["detections/0", "detections/1"]  # of the two validation images
    picture = events.Images("detections/0")[0]
    assert 96 <= picture.width <= 140
    assert picture.encoded_image_string.startswith(b"\x89PNG")


def test_tensorboard_is_missing(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    message = refused("train", "--data", toy, "--out", out, *QUICK, "--tensorboard")
    assert "pip install 'ssdlib[tensorboard]'" in message
    assert not out.exists()


# ---- what is fastest -------------------------------------------------------------------------------------------


def test_what_is_fastest_is_chosen_once(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def seconds(_: Any, __: Any, options: Any) -> dict[tuple[str, str], float]:
        return {option: 1.0 if option == ("float32", "contiguous") else 2.0 for option in options}

    monkeypatch.setattr(precision, "step_seconds", seconds)
    args = ("--data", toy, "--out", tmp_path, "--batch-size", 2, "--iterations", 1, *ALONE)
    assert "precision float32, memory format contiguous: the fastest of" in trained(*args)
    config = config_of(tmp_path)
    assert (config["precision"], config["memory_format"]) == ("float32", "contiguous")
    assert json.loads((tmp_path / "config.json").read_text())["step_seconds"]["float32, contiguous"] == 1.0

    monkeypatch.setattr(precision, "step_seconds", None)  # a run that goes on measures nothing
    for asked in ((), ("--precision", "auto", "--set", "memory_format=auto"), ("--preset", "tiny")):
        assert "is finished" in trained(*args, "--resume", *asked)
    result = call("train", *args, "--resume", "--set", "memory_format=channels_last")
    assert "memory_format='contiguous', not 'channels_last'" in result.output

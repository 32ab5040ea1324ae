"""Validation: what is measured, which weights are kept, when a run ends early; also when it is killed on the way."""

from __future__ import annotations

import math
import os
import signal
import traceback
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import QUICK, Images, empty_item, log_of, same_weights, sample_images, weights_of
from support.voc_folder import object_xml, write_voc

from ssdlib.data import VOCDataset, open_dataset, sample_root
from ssdlib.data.transforms import model_input
from ssdlib.engine import processes, run_folder, train
from ssdlib.engine import run as engine_run
from ssdlib.engine.validation import OverlapWarning, Validation, require_apart
from ssdlib.loss import multibox_loss
from ssdlib.metrics import evaluate
from ssdlib.model import SSD
from ssdlib.zoo.checkpoint import demo_model, load_model, read_description


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images(4)


@pytest.fixture(scope="module")
def held_out() -> Images:
    dataset = VOCDataset(sample_root(), "test")
    return Images([dataset[i] for i in range(5)], dataset.classes)


def test_what_is_measured(held_out: Images):
    """The loss of all images as one batch, whatever the batches; and the mAP of `predict`."""
    model = demo_model()
    measured = [Validation(held_out, batch_size=size).measure(model) for size in (2, 5)]
    assert measured[0] == pytest.approx(measured[1], rel=1e-4)
    images, targets = zip(*(model_input(256)(*held_out[i]) for i in range(5)), strict=True)
    with torch.no_grad():
        parts = multibox_loss(*model(torch.stack(images)), targets, model.priors)
    assert measured[0]["val_localization"] == pytest.approx(float(parts["localization"]), rel=1e-4)
    assert measured[0]["val_confidence"] == pytest.approx(float(parts["confidence"]), rel=1e-4)
    found = model.predict([image for image, _ in held_out.items])
    expected = evaluate(found, [target for _, target in held_out.items], model.num_classes).mean
    assert measured[0]["mAP"] == pytest.approx(expected, abs=1e-3)


def test_what_is_measured_as_on_a_gpu(held_out: Images, monkeypatch: pytest.MonkeyPatch):
    """By the loss and the detection that ask nothing of the device."""
    expected = Validation(held_out, batch_size=2).measure(demo_model())
    monkeypatch.setattr(processes, "ON_DEVICE", ("cpu",))
    monkeypatch.setattr(processes, "multibox_sums", None)
    measured = Validation(held_out, batch_size=2).measure(demo_model())
    assert measured == pytest.approx(expected, rel=1e-5)


def test_without_positives_or_objects_nothing_is_nan(held_out: Images):
    measured = Validation(Images([empty_item()] * 2, held_out.classes)).measure(demo_model())
    assert measured.keys() == {"val_localization", "val_confidence"}  # the mAP would be nan
    assert measured["val_localization"] == 0
    assert math.isfinite(measured["val_confidence"])


def test_nothing_to_validate_on(held_out: Images, tmp_path: Path):
    with pytest.raises(ValueError, match="no images to validate on"):
        Validation(Images([], held_out.classes))
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        Validation(held_out, every=0)
    hard = object_xml("cat", 1, 1, 40, 30, difficult=1)
    folder = write_voc(tmp_path, {"val": ["a"]}, {"a": [hard]})
    with pytest.raises(ValueError, match="no object that counts"):
        Validation(open_dataset(folder, "val", ["cat"]))


# ---- in a run --------------------------------------------------------------------------------------------------


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Iterable[float]) -> list[dict[str, torch.Tensor]]:
    """Let the validations give these scores; the list tells the weights at each."""
    given, weights = iter(scores), []

    def measure(self: Validation, model: SSD, workers: int = 0) -> dict[str, float]:
        weights.append(weights_of(model))
        return {"val_localization": 1.0, "val_confidence": 2.0, "mAP": next(given)}

    monkeypatch.setattr(Validation, "measure", measure)
    return weights


CONFIG = replace(QUICK, iterations=12, ema_decay=0.5)  # four images in batches of two: six epochs


def run(out: Path, sample: Images, held_out: Images, config: Any = CONFIG, **options: Any) -> SSD:
    return train(config, sample, out, progress=False, validation=Validation(held_out), **options)


def test_the_best_weights_are_kept(sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    weights = scripted(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.0, 0.1])
    last = run(tmp_path, sample, held_out)
    best = load_model(tmp_path / "best.safetensors")
    assert all(torch.equal(value, weights[1][name]) for name, value in best.state_dict().items())  # the first of two
    assert not same_weights(best, last)
    training = read_description(tmp_path / "best.safetensors")["training"]
    assert (training["mAP"], training["step"]) == (0.3, 4)
    assert [line["mAP"] for line in log_of(tmp_path)] == [0.1, 0.3, 0.2, 0.3, 0.0, 0.1]
    assert all(line["val_confidence"] == 2.0 for line in log_of(tmp_path))


def test_a_score_of_zero_is_better_than_none(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scripted(monkeypatch, [0.0] * 9)
    run(tmp_path, sample, held_out)
    assert read_description(tmp_path / "best.safetensors")["training"]["step"] == 2


def test_patience(sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scripted(monkeypatch, [0.1, 0.3, 0.2, 0.3, 0.9, 0.9])
    run(tmp_path, sample, held_out, replace(CONFIG, patience=2))
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4, 6, 8]
    names = ["best.safetensors", "config.json", "log.jsonl", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_every_second_epoch_and_the_end(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scripted(monkeypatch, [0.1] * 9)
    validation = Validation(held_out, every=2)
    train(replace(CONFIG, iterations=10), sample, tmp_path, progress=False, validation=validation)
    assert [line["epoch"] for line in log_of(tmp_path) if "mAP" in line] == [2, 4, 5]


def test_predictions_that_are_not_finite_stop_the_run(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("the network's predictions are not finite")

    monkeypatch.setattr(Validation, "measure", broken)
    with pytest.raises(FloatingPointError, match="predictions are not finite, in the validation after step 2"):
        run(tmp_path, sample, held_out)
    assert not (tmp_path / "best.safetensors").exists()


def test_a_full_disk_leaves_the_best_so_far(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = engine_run.save_model

    def full(model: SSD, path: Path, **options: Any) -> Path:
        if (tmp_path / "best.safetensors").exists():
            raise OSError(f"no space to write {path}")
        return real(model, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(engine_run, "save_model", full)
        scripted(patched, [0.1, 0.2])
        with pytest.raises(OSError, match=r"no space to write .*best\.safetensors"):
            run(tmp_path, sample, held_out, save_every=1)
    assert read_description(tmp_path / "best.safetensors")["training"]["mAP"] == 0.1
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 3  # from there it goes on


SCORES = {2: 0.1, 4: 0.3, 6: 0.2, 8: 0.25, 10: 0.2, 12: 0.2}
MOMENTS = {"after the best was written": 1, "before the best is written": 0}


def killed_in_validation(out: Path, sample: Images, held_out: Images, step: int, after: bool) -> None:
    """A run in a copy of this process, which kills itself at the best weights of a step."""
    child = os.fork()
    if child == 0:
        try:
            real = engine_run.save_model

            def save(model: SSD, path: Path, **options: Any) -> Path:
                dies = options["training"].get("step") == step
                if dies and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                saved = real(model, path, **options)
                if dies:
                    os.kill(os.getpid(), signal.SIGKILL)
                return saved

            engine_run.save_model = save  # type: ignore[assignment]
            run(out, sample, held_out, replace(CONFIG, patience=3), save_every=3)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_remembers_its_best(
    moment: str, sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def measure(self: Validation, model: SSD, workers: int = 0) -> dict[str, float]:
        return {"mAP": SCORES[steps[0]]}

    steps = [0]
    real = run_folder.Progress.add

    def counted(self: run_folder.Progress, *args: Any) -> None:
        real(self, *args)
        steps[0] += 1

    monkeypatch.setattr(run_folder.Progress, "add", counted)
    monkeypatch.setattr(Validation, "measure", measure)
    run(tmp_path / "whole", sample, held_out, replace(CONFIG, patience=3))
    steps[0] = 0
    out = tmp_path / "killed"
    killed_in_validation(out, sample, held_out, 4, bool(MOMENTS[moment]))
    steps[0] = torch.load(out / "state.pt", weights_only=True)["step"]
    assert steps[0] == 3
    run(out, sample, held_out, replace(CONFIG, patience=3), resume=True)
    assert log_of(out) == log_of(tmp_path / "whole")
    assert log_of(out)[-1]["step"] == 10  # 0.3 of step 4, and three tries
    for name in ("best.safetensors", "model.safetensors"):
        ours, theirs = load_file(out / name), load_file(tmp_path / "whole" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_best_is_never_compared_with_one_on_other_images(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scripted(monkeypatch, [0.3, 0.2, 0.1, 0.1, 0.1, 0.1])
    run(tmp_path, sample, held_out, CONFIG)
    others = Images(held_out.items[:3], held_out.classes)
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"another one and cannot go on: it has list of validation images '.*', not '"):
        run(tmp_path, sample, others, CONFIG, resume=True)
    assert (tmp_path / "best.safetensors").read_bytes() == before
    run(tmp_path, sample, held_out, CONFIG, resume=True)
    train(CONFIG, sample, tmp_path, progress=False, resume=True)  # without any: nothing is compared


def test_a_stopped_run_that_was_to_end_early_ends(
    sample: Images, held_out: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The state is there and the model could not be written: resumed, it trains no step more."""
    real = engine_run.save_model
    scripted(monkeypatch, [0.3, 0.2, 0.9])

    def full(model: SSD, path: Path, **options: Any) -> Path:
        if path.name == "model.safetensors":
            raise OSError("no space")
        return real(model, path, **options)

    config = replace(CONFIG, patience=1)
    with monkeypatch.context() as patched:
        patched.setattr(engine_run, "save_model", full)
        with pytest.raises(OSError, match="no space"):
            run(tmp_path, sample, held_out, config)
    run(tmp_path, sample, held_out, config, resume=True)
    assert [line["step"] for line in log_of(tmp_path)] == [2, 4]


# ---- training and validation images ----------------------------------------------------------------------------


def folder(path: Path, sets: dict[str, list[str]]) -> Path:
    return write_voc(path, sets, {name: [object_xml("cat", 1, 1, 40, 30)] for names in sets.values() for name in names})


def distinct(root: Path, change: int) -> None:
    """Make the files of a folder others, of the same size."""
    for path in (root / "JPEGImages").iterdir():
        content = bytearray(path.read_bytes())
        name = sum(path.stem.encode())
        content += bytes([change, name % 256])  # after the end of the image
        path.write_bytes(content)


def test_images_of_both_sets_are_found(tmp_path: Path):
    root = folder(tmp_path / "data", {"train": ["a", "b"], "val": ["b", "c"], "test": ["c"]})
    distinct(root, 1)
    train_images, val_images, test_images = (open_dataset(root, name, ["cat"]) for name in ("train", "val", "test"))
    with pytest.raises(ValueError, match=r"1 of the 2 validation images are training images, too .*b\.png"):
        require_apart(train_images, val_images)
    require_apart(train_images, test_images)  # same size, other bytes
    copies = folder(tmp_path / "copies", {"val": ["x"]})
    (copies / "JPEGImages" / "x.png").write_bytes((root / "JPEGImages" / "a.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 of the 1 .*x\.png"):
        require_apart(train_images, open_dataset(copies, "val", ["cat"]))


def test_one_in_a_hundred_and_namesakes_are_told(tmp_path: Path):
    names = [f"n{i}" for i in range(100)]
    root = folder(tmp_path / "data", {"train": ["a", "n7"], "val": names})
    other = folder(tmp_path / "val", {"val": names})
    distinct(root, 1)
    distinct(other, 2)
    (other / "JPEGImages" / "n3.png").write_bytes((root / "JPEGImages" / "a.png").read_bytes())
    ours, theirs = open_dataset(root, "train", ["cat"]), open_dataset(other, "val", ["cat"])
    with pytest.warns(OverlapWarning) as told:
        require_apart(ours, theirs)
    messages = [str(warning.message) for warning in told]
    assert len(messages) == 2
    assert "1 of the 100 validation images are training images, too" in messages[0]
    assert "1 of the 100 validation images have the name of a training image and other bytes" in messages[1]
    assert "n7.png" in messages[1]

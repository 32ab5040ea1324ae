"""Checkpoints: what comes back is what was written, and everything else is refused with a clear message."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ssdlib.backbones import Tiny
from ssdlib.data import TOY_CLASSES, VOCDataset, sample_root
from ssdlib.engine import detect_dataset
from ssdlib.metrics import evaluate
from ssdlib.model import SSD, TINY, build_model
from ssdlib.priors import SSD300_VOC, SSDLITE320
from ssdlib.zoo.checkpoint import demo_model, load_model, read_description, save_model

CLASSES = ("cat", "dog & <b>$x$</b>", "été")


def small_model(**options: Any) -> SSD:
    model = build_model("ssd_tiny", CLASSES, **options)
    for name, buffer in model.named_buffers():  # running averages of a model that has been trained
        if name.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return model


@pytest.fixture
def model() -> SSD:
    return small_model()


@pytest.fixture
def path(model: SSD, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "model.safetensors")


# ---- round trip ------------------------------------------------------------------------------------------------


def test_round_trip_is_exact(model: SSD, path: Path):
    again = load_model(path)
    assert not again.training
    state, expected = again.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    images = torch.rand(2, 3, 256, 256)
    for got, wanted in zip(again(images), model.eval()(images), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("architecture", ["ssdlite320_mobilenet_v3", "ssdlite320_mobilenet_v3_full"])
def test_round_trip_of_ssdlite(tmp_path: Path, architecture: str):
    model = build_model(architecture, CLASSES).eval()
    again = load_model(save_model(model, tmp_path / "m.safetensors"), recipe=SSDLITE320)
    assert again.architecture == architecture
    state, expected = again.state_dict(), model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert torch.equal(again.mean, model.mean)


def test_everything_beside_the_weights_comes_back(tmp_path: Path):
    recipe = replace(TINY, name="my own", scales=(0.1, 0.2, 0.31, 0.5, 0.7, 0.95))
    model = small_model(recipe=recipe, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    again = load_model(save_model(model, tmp_path / "m.safetensors"), classes=CLASSES, recipe=recipe)
    assert again.classes == CLASSES
    assert again.recipe == recipe
    assert again.num_classes == 4
    assert again.architecture == "ssd_tiny"
    for name in ("priors", "mean", "std"):
        assert torch.equal(getattr(again, name), getattr(model, name)), name


def test_description(model: SSD, tmp_path: Path):
    path = save_model(model, tmp_path / "new" / "folder" / "m.safetensors", training={"seed": 3})
    description = read_description(path)
    assert description["architecture"] == "ssd_tiny"
    assert description["classes"] == list(CLASSES)
    assert description["training"] == {"seed": 3}
    assert description["versions"]["torch"] == torch.__version__
    assert [p.name for p in path.parent.iterdir()] == ["m.safetensors"]


def test_half_is_half_the_size_and_loads_as_float32(model: SSD, path: Path, tmp_path: Path):
    half = save_model(model, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.55 * path.stat().st_size
    again = load_model(half)
    for name, expected in model.state_dict().items():
        got = again.state_dict()[name]
        assert got.dtype == expected.dtype, name
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-6)
    assert all(p.dtype == torch.float32 for p in model.parameters())  # the model itself was left alone


def test_others_may_read_it_as_any_new_file(path: Path, tmp_path: Path):
    (tmp_path / "other").write_text("")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_weights_in_another_memory_format(model: SSD, tmp_path: Path):
    changed = model.to(memory_format=torch.channels_last)
    again = load_model(save_model(changed, tmp_path / "m.safetensors"))
    assert all(torch.equal(again.state_dict()[name], value) for name, value in changed.state_dict().items())


def test_every_byte_is_a_described_number(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nothing pickled can be in the file, and nothing is unpickled when it is opened."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__").keys() == {"ssdlib"}
    ends = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert ends[0][0] == 0
    assert all(first[1] == second[0] for first, second in pairwise(ends))
    assert 8 + length + ends[-1][1] == len(data)
    assert {entry["dtype"] for entry in header.values()} <= {"F32", "I64"}

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_model(path)


# ---- refusals --------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere\.safetensors"):
        load_model(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello, I am a text", b"\x80\x04K\x01.", b"\xff" * 100])
def test_no_safetensors_file(tmp_path: Path, content: bytes):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.safetensors is no readable safetensors file"):
        load_model(path)


def test_messages_are_short(path: Path):
    """Whatever a stranger's file is full of, one screen is enough."""
    head = json.dumps({"x": {"dtype": "y" * 9000, "shape": [1], "data_offsets": [0, 4]}}).encode()
    long = path.with_name("long.safetensors")
    long.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(ValueError, match="no readable safetensors file") as unreadable:
        load_model(long)
    with pytest.raises(ValueError, match="is for the classes") as others:
        load_model(path, classes=[str(i) for i in range(9000)])
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors["class_head.convolutions.0.bias"] = torch.zeros([1] * 3000)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match="have another shape") as misfit:
        load_model(path)
    assert max(len(str(caught.value)) for caught in (unreadable, others, misfit)) < 2000


def test_a_cut_off_file(path: Path):
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no readable safetensors file"):
        load_model(path)


def test_a_file_of_another_program(tmp_path: Path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"foreign\.safetensors was not written by ssdlib"):
        load_model(path)


@pytest.mark.parametrize("text", ["{}", "no json", "[]", '{"architecture": "ssd_tiny"}'])
def test_a_broken_description(tmp_path: Path, text: str):
    path = tmp_path / "broken.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata={"ssdlib": text})
    with pytest.raises(ValueError, match=r"broken\.safetensors"):
        load_model(path)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The same file with another description: what the change returns, or the description that it changed."""
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["ssdlib"])
    changed = change(description)
    description = description if changed is None else changed
    text = description if isinstance(description, str) else json.dumps(description)
    save_file(load_file(path), path, metadata={"ssdlib": text})
    return path


DESCRIPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "classes in one text": ({"classes": "abc"}, "classes must be a list of names, got 'abc'"),
    "no classes": ({"classes": []}, r"classes must be a list of names, got \[\]"),
    "classes by number": ({"classes": {"1": "cat"}}, "classes must be a list"),
    "a class that is a number": ({"classes": ["a", "b", 3]}, "classes: the name must be a text, got 3"),
    "an empty class": ({"classes": ["a", "b", ""]}, "classes: the name '' is empty"),
    "a blank class": ({"classes": ["a", "b", " \u3000"]}, r"classes: the name ' \\u3000' is empty"),
    "a class twice": ({"classes": ["a", "b", "a"]}, "classes: the name 'a' is there twice"),
    "a class that colours the terminal": (
        {"classes": ["a", "b", "\x1b[31mc"]},
        r"classes: the name '\\x1b\[31mc' has a control",
    ),
    "a class of two lines": ({"classes": ["a", "b", "c\nerror"]}, r"classes: the name 'c\\nerror' has a control"),
    "a class that turns the line": ({"classes": ["a", "b", "\u202ec"]}, r"classes: the name '\\u202ec' has a control"),
    "half a character": ({"classes": ["a", "b", "\ud800"]}, r"classes: the name '\\ud800' has a control"),
    "classes too many": ({"classes": list("abcdef")}, "does not fit ssd_tiny: .*class_head.* has the shape"),
    "very many classes": ({"classes": [str(i) for i in range(50_000)]}, "does not fit ssd_tiny: .*class_head"),
    "a deviation of 0": ({"std": [0, 1, 1]}, r"std must be three numbers from 0\.0001 to 1000, got \[0, 1, 1\]"),
    "a deviation below 0": ({"std": [1, 1, -1]}, "std must be three numbers"),
    "two deviations": ({"std": [1, 1]}, "std must be three numbers"),
    "a deviation that is a text": ({"std": ["1", 1, 1]}, "std must be three numbers"),
    "a mean that is true": ({"mean": [True, 0, 0]}, "mean must be three numbers from -1000 to 1000"),
    "a mean that is NaN": ({"mean": [float("nan"), 0, 0]}, "mean must be three numbers"),
    "a mean in lists": ({"mean": [[0], [0], [0]]}, "mean must be three numbers"),
    "a mean beyond float32": ({"mean": [10**400, 0, 0]}, "mean must be three numbers"),
    "no text as architecture": ({"architecture": ["ssd_tiny"]}, r"no architecture \['ssd_tiny'\]"),
    "an unknown architecture": ({"architecture": "yolo"}, "no architecture 'yolo'"),
    "another architecture": (
        {"architecture": "ssd300_vgg16"},
        "does not fit ssd300_vgg16: SSD300 needs a recipe for 300",
    ),
    "no recipe": ({"recipe": None}, "recipe must be an object, got None"),
    "a recipe in a list": ({"recipe": [1]}, "recipe must be an object"),
    "an empty recipe": ({"recipe": {}}, "recipe: the field name is missing; a recipe has name, image_size"),
    "a recipe with a field too many": ({"recipe": {"colour": 1}}, "recipe: there is no field 'colour'"),
    "maps that are no list": ({"recipe": {"map_sizes": 5}}, "recipe: map_sizes must be a list, got 5"),
    "ratios that are no lists": ({"recipe": {"ratios": [1]}}, r"recipe: ratios\[0\] must be a list, got 1"),
    "maps of another size": (
        {"recipe": {"map_sizes": [31, 16, 8, 4, 2]}},
        "does not fit ssd_tiny: recipe 'tiny-256' is",
    ),
    "another activation": ({"activation": "relu"}, "activation must be softmax or sigmoid, got 'relu'"),
    "activations in a list": ({"activation": ["sigmoid"]}, "activation must be softmax or sigmoid, got"),
    "a name of a recipe without end": (
        {"recipe": {"name": "x" * 9000}},
        "recipe: the name 'x{199}[.]{3} has 9000 characters",
    ),
    "a switch without end": ({"recipe": {"clip_sizes": "x" * 9000}}, "clip_sizes 'x{900}x*[.]{3}$"),
    "training that is a text": ({"training": "long"}, "training must be an object, got 'long'"),
    "versions in a list": ({"versions": []}, r"versions must be an object, got \[\]"),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_description_that_cannot_be(kind: str, path: Path):
    """One ValueError that begins with the file and names the entry."""
    change, message = DESCRIPTIONS[kind]
    if change.get("recipe"):
        change = {"recipe": {**TINY.to_dict(), **change["recipe"]} if isinstance(change["recipe"], dict) else [1]}
    rewritten(path, lambda description: description.update(change))
    with pytest.raises(ValueError, match=f"^{path}:? .*{message}") as caught:
        load_model(path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("text", ["[" * 100_000, '{"classes": ' * 50_000, "9" * 5000, "NaN", '"text"', "null"])
def test_a_description_that_is_no_object(text: str, path: Path):
    rewritten(path, lambda _: text)
    for read in (load_model, read_description):
        with pytest.raises(ValueError, match=rf"^the description in {path} is no JSON object"):
            read(path)


def test_a_description_of_before(path: Path):
    """The configuration of a run is only noted in a checkpoint, under the names that its fields had then."""
    training = {"config": {"bias_rate": 2.0, "clip_norm": None, "average": 0.99, "augmentation": {"colour": True}}}
    rewritten(path, lambda description: description.update(training=training))
    assert load_model(path).classes == CLASSES
    assert read_description(path)["training"] == training
    younger = ("training", "versions", "activation")
    rewritten(path, lambda description: {k: v for k, v in description.items() if k not in younger})
    assert (load_model(path).classes, load_model(path).activation) == (CLASSES, "softmax")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite(value: float, model: SSD, path: Path, tmp_path: Path):
    tensors = load_file(path)
    name = "class_head.convolutions.0.weight"
    tensors[name].view(-1)[7] = value
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=rf"{path} holds weights that are not finite, in {name}"):
        load_model(path)
    model.load_state_dict(tensors)
    with pytest.raises(
        FloatingPointError, match=rf"other\.safetensors was not written: {name} of this model is not fin"
    ):
        save_model(model, tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_weight_that_is_too_large_for_half(model: SSD, tmp_path: Path):
    with torch.no_grad():
        model.class_head.convolutions[0].weight.fill_(1e5)
    with pytest.raises(FloatingPointError, match="not finite"):
        save_model(model, tmp_path / "m.safetensors", half=True)
    save_model(model, tmp_path / "m.safetensors")


def test_numbers_of_another_type(path: Path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = "class_head.convolutions.0.bias"
    tensors[name] = tensors[name].to(torch.int8)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=f"does not fit ssd_tiny: {name} holds numbers of the type I8"):
        load_model(path)


@pytest.mark.parametrize("classes", [["a", "a"], ["", "b"], ["a\x07", "b"]])
def test_names_that_could_not_be_read_again_are_not_written(classes: list[str], tmp_path: Path):
    with pytest.raises(ValueError, match=r"this model cannot be written to .*m\.safetensors: classes: the name"):
        save_model(build_model("ssd_tiny", classes), tmp_path / "m.safetensors")


def test_other_classes_or_priors_than_expected(path: Path):
    with pytest.raises(ValueError, match=r"is for the classes \['cat', .*not \['dog', 'cat'\]"):
        load_model(path, classes=["dog", "cat"])
    with pytest.raises(ValueError, match="is for the classes"):  # the same names in another order are other labels
        load_model(path, classes=CLASSES[::-1])
    with pytest.raises(ValueError, match="priors of recipe 'tiny-256', not 'ssd300"):
        load_model(path, recipe=SSD300_VOC)
    with pytest.raises(ValueError, match="priors of recipe"):  # the name alone does not make it the same
        load_model(path, recipe=replace(TINY, scales=(0.1, *TINY.scales[1:])))
    load_model(path, classes=list(CLASSES), recipe=TINY)


@pytest.mark.parametrize("damage", ["missing", "shape", "extra"])
def test_tensors_that_do_not_fit(path: Path, damage: str):
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    name = next(iter(sorted(tensors)))
    if damage == "missing":
        del tensors[name]
    else:
        name = name if damage == "shape" else "extra.weight"
        tensors[name] = torch.zeros(7)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=f"(?s)does not fit ssd_tiny: .*{name}"):
        load_model(path)


def test_a_model_without_a_name_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no architecture name"):
        save_model(SSD(Tiny(), TINY, 4), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_crash_while_writing_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch):
    before = path.read_bytes()

    def crash(file: Path, content: bytes) -> None:
        file.write_text("half a file")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", crash)
    with pytest.raises(OSError, match="disk full"):
        save_model(small_model(), path)
    assert path.read_bytes() == before


# ---- the model of the package ----------------------------------------------------------------------------------


def test_the_demo_model_detects():
    model = demo_model()
    assert model.classes == TOY_CLASSES
    dataset = VOCDataset(sample_root(), "test")
    detections, targets = detect_dataset(model, dataset, progress=False)
    assert evaluate(detections, targets, model.num_classes).mean > 0.8

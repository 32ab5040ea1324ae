"""`ssd evaluate` and `ssd detect` against detections whose figures are known, and on every mistake."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.coco_folder import annotation, image, write_coco
from support.commands import call, refused
from support.voc_folder import object_xml, write_image, write_voc
from torch import Tensor

from ssdlib.cli.outputs import picture_names
from ssdlib.data import open_dataset, sample_root
from ssdlib.engine import detect_dataset
from ssdlib.engine.coco_figures import evaluate_coco
from ssdlib.metrics import confusion_matrix, evaluate
from ssdlib.model import build_model
from ssdlib.zoo.checkpoint import demo_model, save_model

CPU = ("--workers", 0, "--device", "cpu")
CAT = object_xml("cat", 1, 1, 31, 21)
HARD_CAT = object_xml("cat", 5, 5, 25, 25, difficult=1)
DOG = object_xml("dog", 3, 3, 33, 27)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(demo_model(), tmp_path_factory.mktemp("demo") / "demo.safetensors")


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of cats and dogs that has learned nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("pets") / "pets.safetensors"
    return save_model(build_model("ssd_tiny", ["cat", "dog"]), path)


# ---- evaluate --------------------------------------------------------------------------------------------------


def expected(options: dict[str, Any]) -> tuple[Any, Any, int]:
    """The detector of the package on its sample, without the command line."""
    model = demo_model()
    dataset = open_dataset(sample_root(), "test", model.classes)
    return (*detect_dataset(model, dataset, progress=False, **options), model.num_classes)


@pytest.mark.parametrize("rule", ["area", "11point"])
def test_figures_are_those_of_the_library(demo: Path, tmp_path: Path, rule: str):
    file = tmp_path / "ap.json"
    result = call("evaluate", demo, "--data", sample_root(), "--ap", rule, "--iou", 0.7, *CPU, "--json", file)
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    wanted = evaluate(*expected({}), iou_threshold=0.7, ap=rule)  # type: ignore[arg-type]
    classes = demo_model().classes
    assert record["mAP"] == pytest.approx(wanted.mean)
    assert record["AP"] == pytest.approx({classes[label - 1]: ap for label, ap in wanted.per_class.items()})
    assert (record["ap"], record["iou_threshold"], record["inclusive"]) == (rule, 0.7, False)
    for name, ap in record["AP"].items():
        assert re.search(rf"^{name} +{record['objects'][name]} +{ap:.3f}$", result.output, re.M)
    count = sum(record["objects"].values())
    assert re.search(rf"^mAP +{count} +{wanted.mean:.3f}   \(IoU 0\.7, {rule}, 32 images\)$", result.output, re.M)
    assert re.search(r"^\d+ images in \d+\.\d s: \d+\.\d images/s$", result.output, re.M)
    matrix = confusion_matrix(*expected({}), min_score=0.3, iou_threshold=0.7)
    assert record["confusion"]["counts"] == matrix.counts.tolist()
    assert record["confusion"]["labels"] == ["background", *classes]
    assert record["confusion"]["misplaced"] == matrix.misplaced.tolist()
    assert sum(map(sum, record["confusion"]["counts"][1:])) == count
    right, missed = matrix.counts.diagonal()[1:].sum(), matrix.counts[1:, 0].sum()
    assert re.search(
        rf"^from a score of 0\.3 on: {right} right, \d+ of another class, {missed} missed,", result.output, re.M
    )


def test_an_overlap_below_that_of_badly_placed_boxes(demo: Path, tmp_path: Path):
    result = call("evaluate", demo, "--data", sample_root(), "--iou", 0.05, *CPU)
    assert result.exit_code == 0, result.output


def test_the_record_says_what_was_measured(demo: Path, tmp_path: Path):
    file = tmp_path / "new" / "ap.json"
    options = {"min_score": 0.3, "max_overlap": 0.5, "top_k": 3}
    flags = [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), value)]
    result = call("evaluate", demo, "--data", sample_root(), *flags, "--iou", 0.8, *CPU, "--json", file)
    assert result.exit_code == 0, result.output
    record = json.loads(file.read_text())
    few, all_of_them = expected(options), expected({})
    wanted = evaluate(*few, iou_threshold=0.8).mean
    assert record["mAP"] == pytest.approx(wanted)
    assert wanted != pytest.approx(evaluate(*few).mean, abs=1e-3)  # the options matter
    assert wanted != pytest.approx(evaluate(*all_of_them, iou_threshold=0.8).mean, abs=1e-3)
    assert record["detection"] == options
    assert record["inclusive"] is False
    model = demo_model()
    assert record["model"] == {
        "file": str(demo),
        "architecture": "ssd_tiny",
        "recipe": "tiny-256",
        "classes": list(model.classes),
    }
    assert record["data"] == [str(sample_root())]
    speed = record["speed"]
    assert speed["images_per_second"] == pytest.approx(record["images"] / speed["seconds"], rel=0.05)
    assert speed["device"] == "cpu"
    assert record["versions"]["torch"] == torch.__version__


def test_coco(demo: Path, tmp_path: Path):
    pytest.importorskip("pycocotools")
    files = ("--json", tmp_path / "ap.json", "--plot", tmp_path / "curves.png")
    result = call("evaluate", demo, "--data", sample_root(), "--ap", "coco", *CPU, *files)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "ap.json").read_text())
    wanted = evaluate_coco(*expected({}))
    for name, value in record["coco"].items():
        assert value == pytest.approx(wanted.figures[name]) or (value is None and wanted.figures[name] != value)
    assert record["mAP"] == record["coco"]["AP"] == pytest.approx(sum(record["AP"].values()) / len(record["AP"]))
    assert record["coco"]["AP50"] > record["coco"]["AP"]
    assert record["iou_threshold"] == "0.5:0.95"
    assert f"AP {record['mAP']:.3f}  AP50 {record['coco']['AP50']:.3f}  AP75" in result.output
    assert "(IoU 0.5:0.95, coco," in result.output
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 300


def test_several_folders_are_one_set(pets: Path, tmp_path: Path):
    one = write_voc(tmp_path / "one", {"test": ["a", "b"]}, {"a": [CAT], "b": [CAT, HARD_CAT]})
    two = write_voc(tmp_path / "two", {"test": ["c"]}, {"c": [DOG, CAT, HARD_CAT]})
    result = call("evaluate", pets, "--data", one, "--data", two, *CPU, "--json", tmp_path / "ap.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "ap.json").read_text())
    assert record["images"] == 3
    assert record["objects"] == {"cat": 3, "dog": 1}
    assert record["difficult"] == 2
    assert record["data"] == [str(one), str(two)]


def test_the_coco_layout(pets: Path, tmp_path: Path):
    objects = [
        annotation(1, 1, 3, [2, 2, 20, 20]),
        annotation(2, 1, 7, [5, 5, 9, 9]),
        annotation(3, 2, 3, [0, 0, 8, 8]),
    ]
    crowd = annotation(4, 2, 7, [10, 10, 20, 15], crowd=1)
    write_coco(tmp_path / "coco", "val", [image(1), image(2)], [*objects, crowd])
    data = ("--data", tmp_path / "coco", "--image-set", "val")
    result = call("evaluate", pets, *data, *CPU, "--json", tmp_path / "ap.json")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "ap.json").read_text())
    assert record["objects"] == {"cat": 2, "dog": 1}
    assert (record["difficult"], record["images"], record["image_set"]) == (1, 2, "val")


def test_a_set_without_objects_has_no_figures(pets: Path, tmp_path: Path):
    root = write_voc(tmp_path / "hard", {"test": ["a", "b"]}, {"a": [HARD_CAT]})
    for rule in ("area", "coco") if importlib.util.find_spec("pycocotools") else ("area",):
        result = call("evaluate", pets, "--data", root, *CPU, "--ap", rule, "--json", tmp_path / "ap.json")
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / "ap.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
        assert (record["mAP"], record["AP"], record["objects"], record["difficult"]) == (None, {}, {}, 1)
        assert re.search(r"^mAP +0 +nan", result.output, re.M)


def test_only_rank_0_prints_and_writes(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ssdlib.cli.evaluate.rank", lambda: 1)
    files = ("--json", tmp_path / "ap.json", "--plot", tmp_path / "curves.png")
    result = call("evaluate", demo, "--data", sample_root(), *CPU, *files)
    assert result.exit_code == 0
    assert "mAP" not in result.output
    assert not list(tmp_path.iterdir())


def test_wrong_options(demo: Path, monkeypatch: pytest.MonkeyPatch):
    evaluate_demo = ("evaluate", demo, "--data", sample_root(), *CPU)
    assert "--iou must be above 0 and at most 1, got 1.5" in refused(*evaluate_demo, "--iou", 1.5)
    assert "leave out --iou" in refused(*evaluate_demo, "--ap", "coco", "--iou", 0.7)
    assert "12point" in refused(*evaluate_demo, "--ap", "12point")
    assert "no image set 'holdout'" in refused(*evaluate_demo, "--image-set", "holdout")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install pycocotools" in refused(*evaluate_demo, "--ap", "coco")


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_the_last_pixel_is_not_counted_twice(pets: Path, tmp_path: Path, layout: str):
    if layout == "voc":
        root = write_voc(tmp_path / "voc", {"test": ["a"]}, {"a": [object_xml("cat", 1, 1, 10, 10)]})
    else:
        root = tmp_path / "coco"
        write_coco(root, "test", [image(1)], [annotation(1, 1, 3, [0, 0, 10, 10])])
    target = open_dataset(root, "test", ["cat", "dog"]).target(0)
    half = {"boxes": torch.tensor([[0.0, 0, 10, 5]]), "labels": torch.tensor([1]), "scores": torch.tensor([1.0])}
    # VOC's own program: pixels 1..10 by 1..5 of an object of pixels 1..10 by 1..10 are one half.
    assert evaluate([half], [target], 3).curves[1].overlap.tolist() == [0.5]
    assert evaluate([half], [target], 3, inclusive=True).curves[1].overlap.tolist() == pytest.approx([11 * 6 / 11**2])
    message = refused("evaluate", pets, "--data", root, "--inclusive", *CPU)
    assert "--inclusive would count the last pixel of each box twice" in message


@pytest.mark.parametrize("field", ["classes", "recipe"])
@pytest.mark.parametrize("command", ["evaluate", "detect", "export"])
def test_a_checkpoint_with_other_classes_or_priors(demo: Path, tmp_path: Path, command: str, field: str):
    with safe_open(demo, framework="pt") as file:
        description = json.loads(file.metadata()["ssdlib"])
    if field == "classes":
        description["classes"].append("unicorn")
    else:
        description["recipe"]["ratios"] = [["extra"]] * 5
    path = tmp_path / "changed.safetensors"
    save_file(load_file(demo), path, metadata={"ssdlib": json.dumps(description)})
    photo = write_image(tmp_path, "a.png")
    rest = {"evaluate": ["--data", sample_root()], "detect": [photo], "export": ["--out", tmp_path / "x.pt2"]}[command]
    assert "changed.safetensors does not fit ssd_tiny" in refused(command, path, *rest)


# ---- detect ----------------------------------------------------------------------------------------------------


def test_pictures_of_images_with_the_same_name(demo: Path, tmp_path: Path):
    images = [write_image(tmp_path / folder, "1.png", size) for folder, size in (("a", (40, 30)), ("b", (50, 20)))]
    images += [write_image(tmp_path / "b", "2.png", (25, 25))]
    result = call("detect", demo, *images, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    sizes = {}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as picture:
            sizes[path.name] = picture.size
    assert sizes == {"JPEGImages_1.png": (40, 30), "JPEGImages_1_2.png": (50, 20), "2.png": (25, 25)}


def test_picture_names():
    assert picture_names([Path("a/1.jpg"), Path("b/1.jpg"), Path("b/2.jpg")]) == ["a_1.png", "b_1.png", "2.png"]
    assert picture_names([Path("x/a/1.jpg"), Path("y/a/1.jpg")]) == ["a_1.png", "a_1_2.png"]
    assert picture_names([Path("a/1.jpg"), Path("a/1.png"), Path("a/1.jpg")]) == ["a_1.png", "a_1_2.png", "a_1_3.png"]
    many = [Path("a/1.jpg"), Path("b/1.jpg"), Path("c/a_1.jpg"), Path("c/A_1.jpg"), Path("c/a_1_2.jpg")]
    assert len({name.lower() for name in picture_names(many)}) == len(many)


@pytest.fixture
def made_up_weights(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Random weights in place of a download; the list fills with the addresses that were asked for."""
    asked: list[str] = []

    def load(url: str, **options: Any) -> dict[str, Tensor]:
        asked.append(url)
        make = torchvision.models.detection.ssdlite320_mobilenet_v3_large
        return make(weights=None, weights_backbone=None, num_classes=91).state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", load)
    return asked


@pytest.mark.slow
def test_torchvision_detectors_by_name(made_up_weights: list[str], tmp_path: Path):
    photo = write_image(tmp_path, "photo.png", (60, 40))
    name = "torchvision:ssdlite320_mobilenet_v3_large"
    result = call("detect", name, photo, "--min-score", 0.0, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    meta = torchvision.models.detection.SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.meta
    assert 0 < len(lines) <= 200
    assert {line["class"] for line in lines if line["class"][:3] != "N/A"} <= set(meta["categories"][1:])
    assert len(made_up_weights) == 1
    root = write_voc(tmp_path / "pets", {"test": ["a"]}, {"a": [CAT, DOG]})
    result = call("evaluate", name, "--data", root, *CPU)
    assert result.exit_code == 0, result.output
    assert re.search(r"^cat +1 +\d\.\d{3}$", result.output, re.M)
    result = call("export", name, "--out", tmp_path / "lite.pt2")
    assert result.exit_code == 0, result.output
    _, scores = torch.export.load(tmp_path / "lite.pt2").module()(torch.rand(1, 3, 320, 320))
    assert scores.shape == (1, 3234, 91)


def test_torchvision_detectors_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    photo = write_image(tmp_path, "photo.png")
    assert "no published weights 'torchvision:yolo'" in refused("detect", "torchvision:yolo", photo)

    def unreachable(url: str, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    assert "no network" in refused("detect", "torchvision:ssdlite320_mobilenet_v3_large", photo)

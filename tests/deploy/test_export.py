"""Export: what the files compute is what PyTorch computes, and what differs is not written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.gpus import REAL
from torch import nn

from ssdlib.boxes import cxcywh_to_xyxy
from ssdlib.coding import decode
from ssdlib.data import VOCDataset, load_image, sample_root
from ssdlib.deploy import export, int8
from ssdlib.deploy.export import check_batch, compare, export_model, target_of, write_onnx
from ssdlib.deploy.int8 import MOST_LOST, export_int8, judge, lost, sensitive
from ssdlib.deploy.nms_graph import add_nms
from ssdlib.deploy.runtimes import onnx_runtime, opencv_runtime, openvino_runtime, torch_runtime
from ssdlib.model import build_model
from ssdlib.zoo.checkpoint import demo_model

CLASSES = ["cat", "dog"]
PHOTOS = sorted((sample_root() / "JPEGImages").glob("*.jpg"))[:3]


@pytest.fixture(scope="module")
def boxes_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The detector of the package as ONNX, with decoded boxes: half a minute on a busy machine, so only once."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "toy.onnx"
    write_onnx(demo_model(), path)
    return path


@pytest.fixture
def quick(boxes_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector of the package has been written as ONNX before."""

    def write(
        model: Any, path: Path, outputs: str, half: bool = False, thresholds: tuple[float, float] = (0.05, 0.45)
    ) -> None:
        assert outputs != "raw"
        assert not half
        onnx = pytest.importorskip("onnx")
        graph = onnx.load(boxes_onnx)
        if outputs == "nms":
            add_nms(graph, *thresholds)
        path.write_bytes(graph.SerializeToString())

    monkeypatch.setattr(export, "write_onnx", write)
    monkeypatch.setattr(int8, "write_onnx", write)


def photographs() -> np.ndarray:
    return check_batch([load_image(path) for path in PHOTOS], 256)


# ---- programs of PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=REAL.marks)])
def test_exporting_leaves_the_model_as_it_is(tmp_path: Path, device: str):
    model = demo_model().train().to(device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = tmp_path / "toy.pt2"
    export_model(model, path)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert value.device.type == device
        assert torch.equal(value, before[name])
    images = torch.rand(2, 3, 256, 256)
    boxes, _ = torch.export.load(path).module()(images)  # on the CPU, in evaluation mode
    with torch.no_grad():
        offsets, _ = demo_model()(images)
    torch.testing.assert_close(boxes, cxcywh_to_xyxy(decode(offsets, demo_model().priors)), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ssd_tiny", "ssdlite320_mobilenet_v3", "ssd300_mobilenet_v2"])
def test_an_exported_program_computes_the_same(tmp_path: Path, architecture: str):
    sigmoid = architecture == "ssd300_mobilenet_v2"
    options: dict[str, Any] = {"activation": "sigmoid"} if sigmoid else {}
    model = demo_model() if architecture == "ssd_tiny" else build_model(architecture, CLASSES, **options).eval()
    side = model.recipe.image_size
    path = tmp_path / "new" / "toy.pt2"
    export_model(model, path, images=[torch.zeros(3, 9, 9, dtype=torch.uint8)])
    assert [p.name for p in path.parent.iterdir()] == ["toy.pt2"]
    program = torch.export.load(path).module()
    for count in (1, 3):
        images = torch.rand(count, 3, side, side)
        with torch.no_grad():
            boxes, scores = program(images)
            offsets, logits = model(images)
        torch.testing.assert_close(boxes, cxcywh_to_xyxy(decode(offsets, model.priors)), rtol=1e-4, atol=1e-5)
        expected = logits.sigmoid() if sigmoid else logits.softmax(dim=-1)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
        if not sigmoid:
            torch.testing.assert_close(scores.sum(dim=-1), torch.ones(count, len(model.priors)))


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["raw", "boxes"])
def test_float16_rounds_and_no_more(tmp_path: Path, outputs: str):
    worst = export_model(demo_model(), tmp_path / "half.pt2", outputs=outputs, half=True)
    assert 1e-6 < worst < 0.03
    exact = export_model(demo_model(), tmp_path / "exact.pt2", outputs=outputs)
    assert exact < 1e-5
    assert (tmp_path / "half.pt2").stat().st_size < 0.8 * (tmp_path / "exact.pt2").stat().st_size


# ---- other runtimes --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "runtime"),
    [("onnxruntime", onnx_runtime), ("openvino", openvino_runtime), ("cv2", opencv_runtime)],
    ids=["onnxruntime", "openvino", "opencv"],
)
def test_other_runtimes_compute_the_same(boxes_onnx: Path, package: str, runtime: Any):
    pytest.importorskip(package)
    images = photographs()
    run = runtime(boxes_onnx)
    with torch.no_grad():
        offsets, logits = demo_model()(torch.from_numpy(images))
    for count in (1, 3):  # any number of images
        boxes, scores = run(images[:count])
        wanted = cxcywh_to_xyxy(decode(offsets[:count], demo_model().priors))
        np.testing.assert_allclose(boxes, wanted.numpy(), atol=2e-5)
        np.testing.assert_allclose(scores, logits[:count].softmax(dim=-1).numpy(), atol=2e-5)


@pytest.mark.slow
def test_colours_in_the_wrong_order_are_noticed(boxes_onnx: Path):
    """The classic mistake: BGR, as OpenCV reads, into a network of RGB."""
    pytest.importorskip("onnxruntime")
    run = onnx_runtime(boxes_onnx)
    with pytest.raises(ValueError, match="differ from PyTorch"):
        compare(lambda images: run(np.ascontiguousarray(images[:, ::-1])), demo_model(), photographs(), "boxes", 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy.onnx", "toy.xml"])
def test_nms_in_the_graph(quick: None, tmp_path: Path, name: str):
    pytest.importorskip("openvino" if name.endswith("xml") else "onnxruntime")
    out = tmp_path / "new" / name
    worst = export_model(demo_model(), out, outputs="nms", images=[load_image(path) for path in PHOTOS])
    assert worst < 1e-4
    assert out.is_file()
    assert not list(out.parent.glob(".*"))
    rows = export.runtime_of(out)(photographs())
    assert [row.shape[1:] for row in rows] == [(), (), (4,), ()]
    found = demo_model().predict([load_image(path) for path in PHOTOS], min_score=0.05)
    assert len(rows[0]) == sum(len(each["labels"]) for each in found)
    assert sorted(rows[1].tolist()) == sorted(label for each in found for label in each["labels"].tolist())
    assert set(rows[0].tolist()) <= {0, 1, 2}


@pytest.mark.slow
def test_openvino_in_float16_is_half_as_large(quick: None, tmp_path: Path):
    pytest.importorskip("openvino")
    for half in (False, True):
        export_model(demo_model(), tmp_path / f"{half}.xml", half=half)
    assert (tmp_path / "True.bin").stat().st_size < 0.6 * (tmp_path / "False.bin").stat().st_size


@pytest.mark.slow
def test_the_file_says_classes_and_colours(boxes_onnx: Path):
    onnx = pytest.importorskip("onnx")
    notes = {entry.key: entry.value for entry in onnx.load(boxes_onnx).metadata_props}
    assert notes["classes"] == '["ball", "crate", "donut", "fish", "leaf", "star"]'
    assert "RGB" in notes["input"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "outputs"), [("toy.onnx", "boxes"), ("toy.onnx", "nms"), ("toy.xml", "boxes")])
def test_int8_finds_what_pytorch_finds(quick: None, tmp_path: Path, name: str, outputs: str):
    """A quarter of the size, other numbers, the same objects; and the file is the one that was judged."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino" if name.endswith("xml") else "onnxruntime")
    labelled = VOCDataset(sample_root(), "test", classes=demo_model().classes)
    photos = [load_image(path) for path in PHOTOS]
    kept = export_int8(demo_model(), tmp_path / name, iter(photos), outputs=outputs, labelled=labelled)
    assert kept.sure >= 3
    assert 0.9 <= kept.agreement <= 1
    assert kept.before == pytest.approx(0.9, abs=0.1)
    assert abs(kept.after - kept.before) <= MOST_LOST
    weights = tmp_path / name.replace(".xml", ".bin")
    assert weights.stat().st_size < 1_200_000  # 2.9 MB in float32
    again = judge(export.runtime_of(tmp_path / name), demo_model(), outputs, photos)
    assert again.agreement == pytest.approx(kept.agreement)
    if outputs == "boxes":
        scores, wanted = (
            run(photographs())[1]
            for run in (export.runtime_of(tmp_path / name), torch_runtime(export.program_of(demo_model())))
        )
        assert np.abs(scores - wanted).max() > 1e-3


@pytest.mark.slow
def test_int8_that_lost_too_much_is_not_written(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("onnxruntime")
    photos = [load_image(path) for path in PHOTOS]
    gray = [torch.full((3, 64, 64), 128, dtype=torch.uint8)] * 2
    with pytest.raises(ValueError, match=r"not written: PyTorch finds nothing .* in the 2 photographs"):
        export_int8(demo_model(), tmp_path / "toy.onnx", gray)
    right = int8.quantize
    # Calibrated on what is gray, the ranges are too narrow for photographs.
    narrow = check_batch(gray, 256)
    monkeypatch.setattr(int8, "quantize", lambda exact, out, batches, careful: right(exact, out, [0.02 * narrow]))
    with pytest.raises(ValueError, match=r"not written: of the \d+ objects that PyTorch finds, the int8 file keeps"):
        export_int8(demo_model(), tmp_path / "toy.onnx", photos)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_int8_is_tried_again_with_the_sensitive_layers_in_float32(
    quick: None, boxes_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("onnxruntime")
    assert len(sensitive(boxes_onnx)) == 10 + 3  # the heads of five maps, and the first layers; none is depthwise
    tried = []
    right = int8.judge

    def strict(*args: Any) -> Any:
        tried.append(right(*args))
        return tried[-1]._replace(agreement=0.5) if len(tried) == 1 else tried[-1]

    monkeypatch.setattr(int8, "judge", strict)
    export_int8(demo_model(), tmp_path / "toy.onnx", [load_image(path) for path in PHOTOS])
    assert len(tried) == 2
    nodes = pytest.importorskip("onnx").load(tmp_path / "toy.onnx").graph.node
    packed = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    exact = {node.name for node in nodes if node.op_type == "Conv" and node.input[1] not in packed}
    assert exact == set(sensitive(boxes_onnx))


def test_int8_is_judged_by_its_map_on_labels():
    """A program that finds only the surest objects agrees on those, and loses mAP on labels."""
    labelled = list(VOCDataset(sample_root(), "test", classes=demo_model().classes))[:6]
    photos = [image for image, _ in labelled]
    exact = torch_runtime(export.program_of(demo_model()))

    def without_stars(images: Any) -> Any:
        boxes, scores = exact(images)
        return boxes, scores * np.array([1, 1, 1, 1, 1, 1, 0], np.float32)

    same = judge(exact, demo_model(), "boxes", photos, labelled)
    assert same.agreement == pytest.approx(1)
    assert same.before == same.after > 0.5
    starless = [image for image, target in labelled if 6 not in target["labels"]]
    starved = judge(without_stars, demo_model(), "boxes", starless, labelled)
    assert starved.agreement > 0.9
    assert str(lost(starved)).startswith("not written: its mAP is 0.")
    assert lost(same) is None


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "toy.pt2").write_text("what was there")
    right = export.runtime_of

    def wrong(path: Path) -> Any:
        run = right(path)
        return lambda images: [output + 0.01 for output in run(images)]

    monkeypatch.setattr(export, "runtime_of", wrong)
    with pytest.raises(ValueError, match=r"not written: its boxes differ from PyTorch's by up to 0\.01"):
        export_model(demo_model(), tmp_path / "toy.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.pt2"]
    assert (tmp_path / "toy.pt2").read_text() == "what was there"


@pytest.mark.parametrize("spoil", ["drop", "label", "move", "image"])
def test_a_wrong_nms_is_noticed(spoil: str):
    images = photographs()
    found = demo_model().predict([torch.from_numpy((i * 255).round().astype(np.uint8)) for i in images], min_score=0.05)

    def rows(batch: Any) -> list[np.ndarray]:
        count = batch.shape[0]
        image = np.concatenate([np.full(len(found[i]["labels"]), i) for i in range(count)])
        labels, boxes, scores = (np.concatenate([f[k] for f in found[:count]]) for k in ("labels", "boxes", "scores"))
        return [image, labels, boxes / 256, scores]

    def spoiled(batch: Any) -> list[np.ndarray]:
        image, labels, boxes, scores = rows(batch)
        if spoil == "drop":
            return [column[1:] for column in (image, labels, boxes, scores)]
        if spoil == "label":
            labels = labels % 6 + 1
        if spoil == "move":
            boxes = boxes + 0.01
        return [image * 0 if spoil == "image" else image, labels, boxes, scores]

    assert compare(rows, demo_model(), images, "nms", 1e-3) < 1e-3
    with pytest.raises(ValueError, match="an object of PyTorch's is not among its own"):
        compare(spoiled, demo_model(), images, "nms", 1e-3)


def test_not_a_number_is_a_difference():
    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            offsets, logits = demo_model()(images)
            return offsets * torch.nan, logits

    with pytest.raises(ValueError, match="offsets differ"):
        compare(torch_runtime(Broken()), demo_model(), photographs(), "raw", 1e-3)


def test_targets():
    assert [target_of(Path(name)) for name in ("a.onnx", "a.xml", "a.pt2", "a")] == [
        "onnx",
        "openvino",
        "torch-export",
        "torch-export",
    ]
    assert target_of(Path("a.onnx"), "onnx") == "onnx"
    with pytest.raises(ValueError, match="no target 'tflite'"):
        target_of(Path("a.tflite"), "tflite")
    with pytest.raises(ValueError, match=r"has not the ending \.xml"):
        target_of(Path("a.onnx"), "openvino")
    with pytest.raises(ValueError, match="torch-export has no NMS"):
        export_model(demo_model(), "a.pt2", outputs="nms")
    with pytest.raises(ValueError, match="no outputs 'all'"):
        export_model(demo_model(), "a.pt2", outputs="all")
    with pytest.raises(ValueError, match=r"int8 goes into \.onnx and \.xml, not into a\.pt2"):
        export_int8(demo_model(), "a.pt2", [])
    with pytest.raises(ValueError, match="int8 needs photographs"):
        export_int8(demo_model(), "a.onnx", [])


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("onnx", "a.onnx", "onnx"), ("onnxscript", "a.xml", "onnx"), ("openvino", "a.xml", "openvino")],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, extra: str
):
    if package == "onnxscript":
        pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, package, None)
    if extra == "openvino":  # whose extra brings onnx too: one command, not two
        monkeypatch.setitem(sys.modules, "onnx", None)
    says = rf"this needs the package {package}: pip install 'ssdlib\[{extra}\]'"
    with pytest.raises(ValueError, match=says):
        export_model(demo_model(), tmp_path / name)
    if extra == "openvino":
        with pytest.raises(ValueError, match=says):
            export_int8(demo_model(), tmp_path / name, [])
    assert not list(tmp_path.iterdir())

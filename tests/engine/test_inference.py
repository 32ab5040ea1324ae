"""Detection on a whole data set; by several processes: test_distributed.py."""

from __future__ import annotations

import pytest
import torch
from support.small_run import Images, empty_item, sample_images, weights_of

from ssdlib.boxes import iou
from ssdlib.engine.inference import detect_dataset
from ssdlib.zoo.checkpoint import demo_model


@pytest.fixture(scope="module")
def sample() -> Images:
    return sample_images()


def four(sample: Images) -> Images:
    return Images(sample.items[:4], sample.classes)


def test_detect_dataset_is_predict_image_by_image(sample: Images):
    model = demo_model()
    detections, targets = detect_dataset(model, sample, batch_size=3, progress=False, min_score=0.3, top_k=20)
    assert len({image.shape for image, _ in sample.items}) > 1  # the sizes do differ
    assert len(detections) == len(targets) == len(sample)
    assert sum(len(found["boxes"]) for found in detections) >= 10
    for (image, target), found, kept in zip(sample.items, detections, targets, strict=True):
        (expected,) = model.predict([image], min_score=0.3, top_k=20)
        assert found["labels"].tolist() == expected["labels"].tolist()
        torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=1e-4, atol=1e-2)
        assert all(torch.equal(kept[key], target[key]) for key in target)  # untouched, in pixels
        assert not found["boxes"].requires_grad


def test_detections_are_in_pixels(sample: Images):
    detections, targets = detect_dataset(demo_model(), sample, progress=False, min_score=0.5)
    near: list[float] = []
    for (image, _), found, target in zip(sample.items, detections, targets, strict=True):
        height, width = image.shape[-2:]
        assert (found["boxes"] <= torch.tensor([width, height, width, height]) + 1e-3).all()
        near += iou(found["boxes"], target["boxes"]).amax(dim=1).tolist()
    assert len(near) >= 10
    assert sum(overlap > 0.5 for overlap in near) >= 0.8 * len(near)  # sure detections lie on objects


def test_detect_dataset_puts_the_model_into_evaluation_mode(sample: Images):
    model = demo_model().train()
    before = weights_of(model)
    detect_dataset(model, four(sample), progress=False)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_detector_with_damaged_weights_is_not_evaluated(sample: Images):
    model = demo_model()
    with torch.no_grad():
        model.class_head.convolutions[2].bias[1] = torch.nan
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        detect_dataset(model, four(sample), progress=False)


def test_detect_dataset_with_images_without_objects_and_without_images():
    detections, targets = detect_dataset(
        demo_model(), Images([empty_item()] * 2, "abcdef"), progress=False, min_score=0.9
    )
    assert [len(found["boxes"]) for found in detections] == [0, 0]
    assert detections[0]["boxes"].shape == (0, 4)
    assert [len(kept["boxes"]) for kept in targets] == [0, 0]
    assert detect_dataset(demo_model(), Images([], "abcdef"), progress=False) == ([], [])

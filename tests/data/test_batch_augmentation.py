"""Augmentation on the device: from one seed, the same choices, boxes and pixels as `model_input`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.gpus import Gpu
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from ssdlib.data import make_toy_voc, open_dataset
from ssdlib.data.batch_augmentation import UNCHANGED, View, Views, distort_colours, draw_view
from ssdlib.data.transforms import Augmentation, model_input
from ssdlib.engine import train
from ssdlib.engine.config import with_settings
from ssdlib.engine.loading import Batches, TrainingImages, make_loader
from ssdlib.engine.presets import PRESETS

EVERYTHING = Augmentation(vertical_flip=0.5)
BOXES = [[4.0, 6, 64, 66], [80, 10, 190, 60], [10, 80, 90, 150], [110, 80, 150, 155], [3, 3, 5, 9]]


def photograph(width: int, height: int) -> Tensor:
    """Smooth colours, as rounding and resampling have to be compared, and not what noise does to hues."""
    small = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(width))
    smooth = torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic")[0]
    return (smooth.clamp(0.05, 0.95) * 255).byte()


def target_of(boxes: list[list[float]]) -> dict[str, Tensor]:
    labels = torch.arange(1, len(boxes) + 1)
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels, "difficult": labels % 2 == 0}


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(color=False),
        EVERYTHING,
        replace(EVERYTHING, zoom_out=1.0, crop_p=0.5),
        replace(EVERYTHING, crop=1.0, zoom_out_p=0.8, color=False),
    ],
)
@pytest.mark.parametrize("boxes", [BOXES, []])
def test_the_same_seed_gives_the_same_image_and_target(augmentation: Augmentation, boxes: list[list[float]]) -> None:
    sizes = [(200, 160), (203, 290), (240, 170)]
    images, targets = [photograph(*size) for size in sizes], target_of(boxes)
    for seed in range(12):
        views, expected = [], []
        for (width, height), image in zip(sizes, images, strict=True):
            torch.manual_seed(seed)
            wanted, wanted_target = model_input(64, augmentation)(image, targets)
            after = torch.rand(1)
            torch.manual_seed(seed)
            view, varied = draw_view(augmentation, 64, width, height, targets)
            assert torch.rand(1) == after  # the generator went equally far: every draw had its partner
            assert varied.keys() == wanted_target.keys()
            for key in ("labels", "difficult"):
                assert torch.equal(varied[key], wanted_target[key])
            torch.testing.assert_close(varied["boxes"], wanted_target["boxes"], atol=1e-5, rtol=0)
            views.append(view)
            expected.append(wanted)
        got = Views.of(images, views, 64).to("cpu", memory_format=torch.channels_last)
        assert got.shape == (3, 3, 64, 64)
        assert got.dtype == torch.float32
        assert got.is_contiguous(memory_format=torch.channels_last)
        apart = (got - torch.stack(expected)).abs()
        # There, the resize rounds to 256 levels, and each of the four changes of colour rounds down.
        levels = 4 if augmentation.color else 1
        assert apart.mean() < 0.75 * levels / 255, seed
        assert apart.quantile(0.99) < 2.5 * levels / 255, seed


def test_boxes_follow_the_pixels() -> None:
    box = [60.0, 40, 140, 120]
    image = torch.zeros(3, 160, 200, dtype=torch.uint8)
    image[:, 40:120, 60:140] = 255
    augmentation = replace(EVERYTHING, color=False, zoom_out=1.8)
    for seed in range(60):
        torch.manual_seed(seed)
        view, varied = draw_view(augmentation, 128, 200, 160, target_of([box]))
        (seen,) = Views.of([image], [view], 128).to("cpu")
        ys, xs = (seen[0] > 0.75).nonzero().unbind(1)  # brighter than the fill
        extent = torch.stack((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1))
        assert (extent - 128 * varied["boxes"][0]).abs().max() <= 1.5, (seed, view)


def test_a_window_beyond_the_image_shows_the_fill() -> None:
    image = torch.zeros(3, 50, 40, dtype=torch.uint8)
    (seen,) = Views.of([image], [View((-40, -50, 80, 100), (False, False))], 30).to("cpu")
    fill = torch.tensor([123.0, 117, 104]) / 255
    assert seen[:, 12:18, 12:18].max() < 1e-6
    torch.testing.assert_close(seen[:, :8, :8], fill[:, None, None].expand(3, 8, 8))
    torch.testing.assert_close(seen[:, 22:, 22:], fill[:, None, None].expand(3, 8, 8))


def test_distortion_is_that_of_torchvision() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images[0, :, :4] = images[0, :1, :4]  # grays
    unchanged = torch.tensor([UNCHANGED, UNCHANGED])
    torch.testing.assert_close(distort_colours(images, unchanged), images)
    for column, value, expected in (
        (0, 1.1, TF.adjust_brightness(images, 1.1)),
        (1, 0.6, TF.adjust_contrast(images, 0.6)),
        (2, 1.4, TF.adjust_saturation(images, 1.4)),
        (3, -0.05, TF.adjust_hue(images, -0.05)),
        (3, 0.3, TF.adjust_hue(images, 0.3)),
        (4, 1.5, TF.adjust_contrast(images, 1.5)),
    ):
        colours = unchanged.clone()
        colours[1, column] = value
        got = distort_colours(images, colours)
        torch.testing.assert_close(got[0], images[0])
        torch.testing.assert_close(got[1], expected[1], atol=1e-5, rtol=0)
    permuted = unchanged.clone()
    permuted[:, 5:] = torch.tensor([2.0, 0, 1])
    assert torch.equal(distort_colours(images, permuted), distort_colours(images, unchanged)[:, [2, 0, 1]])


@pytest.mark.parametrize("augmentation", [None, Augmentation(color=False, zoom_out=1.5)])
def test_a_loader_gives_the_same_batches_either_way(augmentation: Augmentation | None) -> None:
    class Photographs:
        classes = ("a",)

        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
            return photograph(200 + 10 * index, 170 - index), target_of(BOXES)

    batches = []
    for on_device, workers in ((False, 0), (True, 0), (True, 1)):
        images = TrainingImages(Photographs(), 64, augmentation, seed=3, on_device=on_device)
        loader = make_loader(images, Batches(5, 2, 3), workers, torch.device("cpu"))
        batches.append([(pixels.to("cpu", non_blocking=True), targets) for pixels, targets in loader])
    assert len(batches[0]) == 2
    for (pixels, targets), *others in zip(*batches, strict=True):
        for other, other_targets in others:
            assert (other - pixels).abs().max() < 3 / 255
            torch.testing.assert_close(other_targets, targets, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_run_that_augments_on_its_device_is_the_same_run(tmp_path: Path) -> None:
    toy = make_toy_voc(tmp_path / "toy", train=3, val=1, test=1, sides=(96, 140), progress=False)
    dataset = open_dataset(toy, "trainval")
    config = with_settings(PRESETS["tiny_few"], ["iterations=2", "batch_size=2"])
    logs = []
    for where in ("loader", "device"):
        train(with_settings(config, [f"augment_on={where}"]), dataset, tmp_path / where, progress=False)
        logs.append(json.loads((tmp_path / where / "log.jsonl").read_text().splitlines()[0]))
    for loss in ("localization", "confidence"):
        assert logs[1][loss] == pytest.approx(logs[0][loss], rel=0.02)
    with pytest.raises(ValueError, match="augment_on must be 'loader' or 'device', got 'gpu'"):
        with_settings(config, ["augment_on=gpu"])


def test_a_batch_is_seen_on_a_gpu_without_waiting(gpu: Gpu) -> None:
    images = [torch.randint(0, 256, (3, side, 50), dtype=torch.uint8) for side in (40, 60)]
    target = {"boxes": torch.tensor([[5.0, 5.0, 30.0, 30.0]]), "labels": torch.tensor([1])}
    views = [draw_view(Augmentation(), 32, each.shape[2], each.shape[1], target)[0] for each in images]
    batch = Views.of(images, views, 32)
    seen = gpu.without_waiting(lambda: batch.pin_memory().to(gpu.device, non_blocking=True))
    assert seen.device.type == "cuda"
    torch.testing.assert_close(seen.cpu(), batch.to("cpu"), rtol=1e-3, atol=1e-3)
    assert batch.to("meta").shape == seen.shape == (2, 3, 32, 32)

"""Images that are kept in memory: the same samples, without the files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.coco_folder import annotation, image, write_coco
from support.voc_folder import object_xml, write_annotation, write_image, write_voc
from torch.utils.data import DataLoader

from ssdlib.data import AnnotatedDataset, VOCDataset, open_dataset

CAT = object_xml("cat", 1, 1, 20, 25)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Images of several sizes, one of them turned by its EXIF data, in both layouts."""
    voc = write_voc(tmp_path / "voc", {"train": ["a", "b", "c"]}, {"a": [CAT], "c": [CAT]})
    write_image(voc, "b.png", (64, 20))
    write_annotation(voc, "b", size=(64, 20))
    (voc / "JPEGImages" / "c.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((40, 30), 90).convert("RGB").save(voc / "JPEGImages" / "c.jpg", exif=exif)
    write_annotation(voc, "c", [CAT], size=(30, 40))
    coco = tmp_path / "coco"
    images = [image(1), image(2, size=(33, 17))]
    write_coco(coco, "train", images, [annotation(1, 2, 1, [1, 2, 3, 4])], [{"id": 1, "name": "cat"}])
    return [voc, coco]


def samples(dataset: AnnotatedDataset, **options: Any) -> list[Any]:
    return list(DataLoader(dataset, batch_size=None, **options))


def same(ours: list[Any], theirs: list[Any]) -> bool:
    for (pixels, target), (other, its_target) in zip(ours, theirs, strict=True):
        assert pixels.dtype == other.dtype
        assert pixels.is_contiguous()
        if not torch.equal(pixels, other) or target.keys() != its_target.keys():
            return False
        if not all(torch.equal(value, its_target[key]) for key, value in target.items()):
            return False
    return True


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_samples_are_the_same_and_the_files_are_not_needed(folders: list[Path], workers: int):
    expected = samples(open_dataset(folders, "train"))
    dataset = open_dataset(folders, "train", cache=True, progress=False)
    for folder in ("voc/JPEGImages", "coco/train"):
        shutil.rmtree(folders[0].parent / folder)
    assert same(samples(dataset, num_workers=workers), expected)
    assert same(samples(dataset, num_workers=workers), expected)
    assert torch.equal(dataset[-1][0], expected[-1][0])
    with pytest.raises(IndexError):
        dataset[5]


def test_memory(folders: list[Path], capsys: pytest.CaptureFixture[str]):
    dataset = open_dataset(folders, "train")
    assert dataset.decoded_bytes == sum(pixels.numel() for pixels, _ in samples(dataset))
    dataset.cache_images()
    assert f"decoding into {dataset.decoded_bytes / 1000:.1f}kB of memory: 100%" in capsys.readouterr().err
    dataset.cache_images(progress=False)
    assert capsys.readouterr().err == ""


def test_a_changed_sample_does_not_change_the_cache(folders: list[Path]):
    dataset = VOCDataset(folders[0], "train")
    before = dataset[0][0]
    dataset.cache_images(progress=False)
    dataset[0][0].zero_()
    assert torch.equal(dataset[0][0], before)


def test_the_transform_comes_after_the_cache(folders: list[Path]):
    dataset = VOCDataset(folders[0], "train", transform=lambda pixels, target: (pixels.sum(), target))
    before = [total.item() for total, _ in samples(dataset)]
    dataset.cache_images(progress=False)
    assert [total.item() for total, _ in samples(dataset)] == before


def test_an_image_that_cannot_be_decoded_is_named(folders: list[Path]):
    dataset = VOCDataset(folders[0], "train")
    cut = dataset.image_path(1)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:2000])
    with pytest.raises(ValueError, match=r"b\.png: cannot be decoded"):
        dataset.cache_images(progress=False)
    cut.write_bytes(whole)
    assert len(samples(dataset)) == 3  # goes on without a cache


def test_an_empty_set(tmp_path: Path):
    dataset = VOCDataset(write_voc(tmp_path, {"train": []}), "train")
    dataset.cache_images(progress=False)
    assert (len(dataset), dataset.decoded_bytes) == (0, 0)

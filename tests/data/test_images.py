from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssdlib.data.images import load_image, read_header

RED, BLUE = (255, 0, 0), (0, 0, 255)


def arrow() -> Image.Image:
    """40 x 30, black, with a red top left quarter, so that every turn shows."""
    image = Image.new("RGB", (40, 30))
    image.paste(RED, (0, 0, 20, 15))
    return image


def save_turned(path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    arrow().save(path, exif=exif)
    return path


def test_rgb_is_read_as_planes(tmp_path: Path):
    path = tmp_path / "a.png"
    arrow().save(path)
    image = load_image(path)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 30, 40)
    assert image.is_contiguous()
    assert torch.equal(image, pil_to_tensor(arrow()))
    assert image[:, 0, 0].tolist() == list(RED)
    assert image[:, 29, 39].tolist() == [0, 0, 0]


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK", "RGB"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    arrow().convert(mode).save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    image = load_image(path)
    assert image.shape == (3, 30, 40)
    expected = np.asarray(arrow().convert(mode).convert("RGB")).astype(int)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - expected)[:8, :16].max() <= 3


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
def test_palette_with_transparency_keeps_its_colours(tmp_path: Path, transparency):
    palette = Image.new("P", (4, 3))
    palette.putpalette([*RED, *BLUE, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    path = tmp_path / "a.png"
    palette.save(path, transparency=transparency)
    image = load_image(path)
    assert image[:, 0, 0].tolist() == list(RED)
    assert image[:, 0, 1].tolist() == list(BLUE)


def test_sixteen_bits_are_cut_to_the_upper_eight(tmp_path: Path):
    deep = (np.arange(12, dtype=np.uint16) * 5000).reshape(3, 4)
    path = tmp_path / "a.png"
    Image.fromarray(deep).save(path)
    image = load_image(path)
    assert image.shape == (3, 3, 4)
    for plane in image:
        assert plane.tolist() == (deep // 256).tolist()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("orientation", "corner"),
    list(enumerate(["top left", "top right", "bottom right", "bottom left"] * 2, start=1)),
)
def test_exif_orientation(tmp_path: Path, orientation: int, corner: str, suffix: str):
    path = save_turned(tmp_path / f"a.{suffix}", orientation)
    header = read_header(path)
    size = (30, 40) if orientation >= 5 else (40, 30)
    assert header == ((40, 30), size, orientation != 1)

    upright = load_image(path)
    assert upright.shape == (3, size[1], size[0])
    row = 3 if corner.startswith("top") else -4
    column = 3 if corner.endswith("left") else -4
    assert upright[0, row, column] > 200
    assert (upright[0] > 128).float().mean() == pytest.approx(0.25, abs=0.05)

    stored = load_image(path, upright=False)
    assert stored.shape == (3, 30, 40)
    assert stored[0, 3, 3] > 200


def test_an_impossible_orientation_is_none(tmp_path: Path):
    path = save_turned(tmp_path / "a.jpg", 9)
    assert read_header(path) == ((40, 30), (40, 30), False)
    assert load_image(path).shape == (3, 30, 40)


@pytest.mark.parametrize("read", [read_header, load_image])
def test_files_that_are_no_images_are_named(tmp_path: Path, read):
    path = tmp_path / "rubbish.jpg"
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"rubbish\.jpg: cannot be"):
        read(path)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        read(tmp_path / "none.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_cut_off_file_is_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"cut.{suffix}"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:3000])
    assert read_header(path).stored == (200, 200)
    with pytest.raises(ValueError, match=rf"cut\.{suffix}: cannot be decoded"):
        load_image(path)

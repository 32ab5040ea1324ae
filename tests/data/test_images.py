from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, features
from torchvision.transforms.functional import pil_to_tensor

from ssdlib.data.images import jpeg_size, load_image, read_header

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


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_files_which_pillow_turns_itself(tmp_path: Path, orientation: int, compression: str | None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    arrow().save(tmp_path / "a.tif", exif=exif, compression=compression)
    other = save_turned(tmp_path / "a.png", orientation)
    assert read_header(tmp_path / "a.tif") == read_header(other)
    for upright in (True, False):
        assert torch.equal(load_image(tmp_path / "a.tif", upright), load_image(other, upright))


def test_odd_exif_data_do_not_stop_a_rotated_photograph(tmp_path: Path):
    path = save_turned(tmp_path / "a.jpg", 6)
    upright = load_image(path)
    odd = Image.Exif()
    odd[0x0112] = 6
    odd[0x011A] = 72  # the resolution, a fraction, of which Pillow cannot write the value that is put in below
    arrow().save(path, exif=odd)
    content = path.read_bytes()
    tag = (
        content.index(b"\x1a\x01") if content[12:14] != b"MM" and b"II" in content[:20] else content.index(b"\x01\x1a")
    )
    order = "little" if b"II" in content[:20] else "big"
    text = (2).to_bytes(2, order) + (4).to_bytes(4, order) + b"odd\0"  # a text where a number should be
    path.write_bytes(content[: tag + 2] + text + content[tag + 12 :])
    with Image.open(path) as image, pytest.raises(Exception, match=r"."):
        ImageOps.exif_transpose(image)
    assert read_header(path).rotated
    assert torch.equal(load_image(path), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0MM\0\x2a\xff\xff\xff\xff", b"Exif\0\0"])
def test_exif_data_that_cannot_be_read_ask_for_no_turn(tmp_path: Path, exif: bytes):
    arrow().save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg") == ((40, 30), (40, 30), False)
    assert load_image(tmp_path / "a.jpg").shape == (3, 30, 40)


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


@pytest.mark.parametrize("error", [RuntimeError, KeyError, struct.error, OverflowError, MemoryError])
@pytest.mark.parametrize("read", [read_header, load_image])
def test_whatever_a_decoder_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read, error):
    arrow().save(tmp_path / "a.png")

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(ValueError, match=rf"a\.png: cannot be .*: {error.__name__}"):
        read(tmp_path / "a.png")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_damaged_avif_file_is_named(tmp_path: Path):
    path = tmp_path / "a.avif"
    arrow().save(path)
    content = bytearray(path.read_bytes())
    content[-20:] = bytes(20)
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"a\.avif: cannot be"):
        load_image(path)


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n", b"DDS " + bytes(200)]
)
def test_formats_that_need_programs_or_are_no_photographs_are_not_tried(tmp_path: Path, content: bytes):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg: cannot be read as an image: cannot identify"):
        read_header(path)


@pytest.mark.parametrize(("mode", "kind"), [("F", "floating point"), ("I", "32-bit")])
def test_pixels_without_a_known_white_are_refused_not_made_black(tmp_path: Path, mode: str, kind: str):
    path = tmp_path / "a.tif"
    Image.fromarray(np.full((30, 40), 0.5 if mode == "F" else 70000, np.float32 if mode == "F" else np.int32)).save(
        path
    )
    with pytest.raises(ValueError, match=rf"a\.tif: cannot be decoded: its pixels are {kind} numbers"):
        load_image(path)


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 20},
    "restarts": {"restart_marker_blocks": 2},
    "a comment": {"comment": b"a comment"},
    "a profile": {"icc_profile": b"a profile of colours"},
    "full colours": {"subsampling": 0},
}


def jpeg(mode: str = "RGB", size: tuple[int, int] = (123, 45), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", JPEGS)
def test_the_size_of_a_plain_jpeg_is_what_pillow_reads(mode: str, kind: str):
    content = jpeg(mode, **JPEGS[kind])
    assert jpeg_size(content[:8192]) == (123, 45)
    scan = content.index(b"\xff\xda")
    for length in range(scan + 1):  # a head that ends before the pixels is for Pillow to judge
        assert jpeg_size(content[:length]) is None


def test_what_is_not_plain_is_left_to_pillow(tmp_path: Path):
    turned = save_turned(tmp_path / "turned.jpg", 6).read_bytes()
    assert jpeg_size(turned) is None
    assert jpeg_size(save_turned(tmp_path / "a.png", 1).read_bytes()) is None
    assert jpeg_size(b"") is jpeg_size(b"\xff\xd8\xff" + bytes(100)) is None
    content = jpeg()
    frame = content.index(b"\xff\xc0")
    for place, value in ((1, 0xC3), (1, 0xC9), (4, 12), (9, 2)):  # lossless, arithmetic, 12 bits, two channels
        other = bytearray(content)
        other[frame + place] = value
        assert jpeg_size(bytes(other)) is None
    for sides in (b"\0\0\0\x10", b"\x27\x10\x27\x10"):  # nothing, and a hundred million pixels
        assert jpeg_size(content[: frame + 5] + sides + content[frame + 9 :]) is None
    twice = content[:frame] + content[frame : frame + 19] + content[frame:]
    assert jpeg_size(twice) is None


@given(place=st.integers(0, 700), value=st.integers(0, 255))
def test_a_damaged_jpeg_has_the_size_that_pillow_reads(place: int, value: int):
    damaged = bytearray(PLAIN)
    damaged[place % len(damaged)] = value
    size = jpeg_size(bytes(damaged))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(damaged), formats=("JPEG",)) as image:
                expected = image.size
    except Exception:  # errors of nearly every kind; what cannot be opened is found when it is decoded
        return
    assert size in (None, expected)


PLAIN = jpeg()

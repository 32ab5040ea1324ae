"""Archives that mean harm, or are none."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from ssdlib.data.download import unpack


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 5 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../evil"),
        member("VOCdevkit/VOC2007/../../../evil"),
        member("/evil"),
        member("evil"),
        member("VOCdevkit/VOC2012/evil"),
        member("VOCdevkit/VOC2007/evil", tarfile.SYMTYPE, "/etc/passwd"),
        member("VOCdevkit/VOC2007/evil", tarfile.SYMTYPE, "JPEGImages"),
        member("VOCdevkit/VOC2007/evil", tarfile.LNKTYPE, "VOCdevkit/VOC2007/good"),
        member("VOCdevkit/VOC2007/evil", tarfile.FIFOTYPE),
        member("VOCdevkit/VOC2007/evil", tarfile.CHRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()} {info.linkname}".strip(),
)
def test_members_outside_and_links_are_refused(tmp_path: Path, evil: tarfile.TarInfo):
    root = tmp_path / "outer" / "data"
    root.mkdir(parents=True)
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for info in (member("VOCdevkit/VOC2007/good"), evil):
            tar.addfile(info, io.BytesIO(b"hello") if info.isreg() else None)
    with pytest.raises(ValueError, match=r"evil\.tar: the member '.*evil' is not a file or folder below VOCdevkit/"):
        unpack(path, root, "VOC2007", progress=False)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["evil.tar"]


@pytest.mark.parametrize("name", ["VOCdevkit", "VOCdevkit/VOC2007", "."])
def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path, name: str):
    path, root = tmp_path / "evil.tar", tmp_path / "data"
    root.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.addfile(member(name), io.BytesIO(b"hello"))
    with pytest.raises(ValueError, match=r"evil\.tar: the member .* is not a file or folder below VOCdevkit/"):
        unpack(path, root, "VOC2007", progress=False)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["evil.tar"]


def test_no_archive(tmp_path: Path):
    path = tmp_path / "page.tar"
    path.write_text("<html>")
    with pytest.raises(ValueError, match=r"page\.tar cannot be unpacked: .*; remove it"):
        unpack(path, tmp_path, "VOC2007", progress=False)

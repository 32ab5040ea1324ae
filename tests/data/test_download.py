from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import tarfile
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.file_server import FileServer, serving
from support.voc_archives import md5, packed, write_part
from support.voc_folder import object_xml

from ssdlib.data import VOCDataset, download, download_voc, open_dataset
from ssdlib.data.download import VOC_ARCHIVES, Archive, fetch, unpack

CAT = object_xml("cat", 1, 1, 40, 30)
FILES = ("Annotations/{}.xml", "JPEGImages/{}.jpg")


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    parts = {"07trainval": ("VOC2007", "trainval", ["a", "b"]), "07test": ("VOC2007", "test", ["c"])}
    parts["12trainval"] = ("VOC2012", "trainval", ["2012_d", "2012_e"])
    made = {}
    for part, (name, image_set, ids) in parts.items():
        folder = tmp_path_factory.mktemp(part)
        write_part(folder / name, image_set, ids)
        made[f"{part}.tar"] = packed(folder)
    return made


@pytest.fixture
def server(contents: dict[str, bytes]) -> Iterator[FileServer]:
    with serving(FileServer(dict(contents))) as running:
        yield running


@pytest.fixture
def archives(contents: dict[str, bytes], server: FileServer) -> list[Archive]:
    sets = {"07trainval": ("VOC2007", "trainval", 2), "07test": ("VOC2007", "test", 1)}
    sets["12trainval"] = ("VOC2012", "trainval", 2)
    return [Archive(f"{server.url}/{n}.tar", md5(contents[f"{n}.tar"]), *about) for n, about in sets.items()]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(download, "_BLOCK", 1000)
    return tmp_path / "data"


def get(root: Path, archives: list[Archive], **options: Any) -> list[float]:
    """Download; the seconds that it would have waited between attempts."""
    pauses: list[float] = []
    download_voc(root, archives, progress=False, pause=pauses.append, **options)
    return pauses


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# ---- all goes well ---------------------------------------------------------------------------------------------


def test_the_three_parts(root: Path, archives: list[Archive], server: FileServer):
    folders = download_voc(root, archives, progress=False)
    assert folders == [root / "VOC2007", root / "VOC2012"]
    assert server.requests == [(archive.filename, None) for archive in archives]
    assert sorted(path.name for path in root.iterdir()) == ["VOC2007", "VOC2012"]  # nothing is left lying about
    assert files_of(root / "VOC2012") == sorted(
        [f.format(i) for f in FILES for i in ("2012_d", "2012_e")] + ["ImageSets/Main/trainval.txt"]
    )
    assert VOCDataset(root / "VOC2007", "test").ids == ["c"]
    assert open_dataset(folders, "trainval").ids == ["a", "b", "2012_d", "2012_e"]


def test_what_is_there_costs_no_request(root: Path, archives: list[Archive], server: FileServer):
    get(root, archives)
    server.requests.clear()
    get(root, archives)
    assert server.requests == []


@pytest.mark.parametrize("name", ["Annotations/b.xml", "JPEGImages/b.jpg", "ImageSets/Main/trainval.txt"])
def test_a_folder_that_lacks_a_file_is_made_whole(root: Path, archives: list[Archive], server: FileServer, name: str):
    get(root, archives)
    (root / "VOC2007" / name).unlink()
    (root / "VOC2007" / "mine.txt").write_text("notes")
    server.requests.clear()
    get(root, archives)
    assert server.requests == [("07trainval.tar", None)]
    assert (root / "VOC2007" / name).is_file()
    assert (root / "VOC2007" / "mine.txt").read_text() == "notes"


def test_archives_can_be_kept_and_are_used_again(root: Path, archives: list[Archive], server: FileServer):
    get(root, archives, keep=True)
    assert files_of(root / "downloads") == sorted(server.files)
    shutil.rmtree(root / "VOC2007")
    server.requests.clear()
    get(root, archives, keep=True)
    assert server.requests == []
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_mirror(root: Path, archives: list[Archive], server: FileServer):
    elsewhere = [Archive(f"http://127.0.0.1:9/{a.filename}", a.md5, a.folder, a.image_set, a.images) for a in archives]
    get(root, elsewhere, mirror=f"{server.url}/")
    assert [name for name, _ in server.requests] == [archive.filename for archive in archives]


def test_progress(root: Path, archives: list[Archive], server: FileServer, capsys: pytest.CaptureFixture[str]):
    server.plan = [503]
    download_voc(root, archives[:1], pause=lambda _: None)
    said = capsys.readouterr().err
    assert "07trainval.tar: 100%" in said
    assert "unpacking 07trainval.tar" in said
    assert "the server answers 503 Service Unavailable; trying again in 2 s" in said


def test_the_published_archives():
    datasets = pytest.importorskip("torchvision.datasets.voc").DATASET_YEAR_DICT
    for name, key in (("2007-trainval", "2007"), ("2007-test", "2007-test"), ("2012-trainval", "2012")):
        archive, known = VOC_ARCHIVES[name], datasets[key]
        ours, theirs = (url.partition("/pascal/")[2] for url in (archive.url, known["url"]))  # the host has moved once
        assert (ours, archive.filename, archive.md5) == (theirs, known["filename"], known["md5"])
        assert f"VOCdevkit/{archive.folder}" == Path(known["base_dir"]).as_posix()
    assert sum(a.images for a in VOC_ARCHIVES.values() if a.image_set == "trainval") == 16551


# ---- the connection --------------------------------------------------------------------------------------------


def test_a_cut_connection_is_resumed(root: Path, archives: list[Archive], server: FileServer):
    size = len(server.files["07trainval.tar"])
    server.plan = [("cut", 3500), ("cut", 4000)]
    pauses = get(root, archives[:1])
    assert [wanted for _, wanted in server.requests] == [None, "bytes=3500-", "bytes=7500-"]
    assert server.sent == size  # no byte twice
    assert pauses == [1, 1]
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_run_that_gave_up_is_resumed_by_the_next(root: Path, archives: list[Archive], server: FileServer):
    server.plan = [("cut", 3500), *[503] * 5]
    pauses: list[float] = []
    with pytest.raises(ConnectionError, match=r"answers 503 .*3500 bytes are kept in .*07trainval.tar.part: run again"):
        download_voc(root, archives, progress=False, pause=pauses.append)
    assert pauses == [1, 2, 4, 8, 16]
    server.requests.clear()
    get(root, archives[:1])
    assert server.requests == [("07trainval.tar", "bytes=3500-")]
    assert server.sent == len(server.files["07trainval.tar"])


def test_no_length(root: Path, archives: list[Archive], server: FileServer):
    server.length = False
    get(root, archives[:1])
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_server_without_ranges_sends_all_again(root: Path, archives: list[Archive], server: FileServer):
    server.ranges = False
    server.plan = [("cut", 3500)]
    get(root, archives[:1])
    assert server.sent == 3500 + len(server.files["07trainval.tar"])
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_server_without_ranges_that_always_cuts_is_given_up(root: Path, archives: list[Archive], server: FileServer):
    server.ranges = False
    server.plan = [("cut", 3500)] * 50
    with pytest.raises(ConnectionError, match=r"cut at 3500 of \d+ bytes"):
        get(root, archives)
    assert len(server.requests) == 6


def test_a_part_that_is_whole_already(root: Path, archives: list[Archive], server: FileServer):
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / "07trainval.tar.part").write_bytes(server.files["07trainval.tar"])
    get(root, archives[:1])
    assert server.sent == 0
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


@pytest.mark.parametrize("length", [3500, 10**6])
def test_a_part_of_another_file_is_fetched_anew(root: Path, archives: list[Archive], server: FileServer, length: int):
    (root / "downloads").mkdir(parents=True)
    (root / "downloads" / "07trainval.tar.part").write_bytes(b"x" * length)
    get(root, archives[:1])
    assert [wanted for _, wanted in server.requests] == [f"bytes={length}-", None]
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_missing_file(root: Path, archives: list[Archive], server: FileServer):
    del server.files["07trainval.tar"]
    with pytest.raises(FileNotFoundError, match=r"07trainval.tar: the server answers 404 .*--url"):
        get(root, archives)
    assert len(server.requests) == 1


def test_an_endless_body_is_cut_at_the_known_size(root: Path, archives: list[Archive], server: FileServer):
    size = len(server.files["07trainval.tar"])
    server.length, server.endless = False, True
    with pytest.raises(ValueError, match=rf"07trainval.tar: the server sends more than the {size} bytes that are exp"):
        get(root, [replace(archives[0], size=size)])
    assert files_of(root) == []
    assert len(server.requests) == 1


def test_an_endless_body_of_unknown_size_is_cut_too(
    root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(download, "_LARGEST", 10**6)
    server.length, server.endless = False, True
    with pytest.raises(ValueError, match=r"the server sends more than the 1000000 bytes"):
        get(root, archives[:1])
    assert files_of(root) == []


def test_a_file_of_the_known_size_is_taken(root: Path, archives: list[Archive], server: FileServer):
    get(root, [replace(archives[0], size=len(server.files["07trainval.tar"]))])
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_larger_file_than_known_is_refused_before_it_comes(root: Path, archives: list[Archive], server: FileServer):
    size = len(server.files["07trainval.tar"])
    with pytest.raises(ValueError, match=rf"a file of {size} bytes, and {size - 1} are the most that is expected"):
        get(root, [replace(archives[0], size=size - 1)])
    assert files_of(root) == []


@pytest.mark.parametrize("length", ["abc", "-5", "1_000", "1e3", "9" * 5000])
def test_a_length_that_is_no_number(root: Path, archives: list[Archive], server: FileServer, length: str):
    server.length = length
    with pytest.raises(ConnectionError, match=r"07trainval.tar: the server announces a length of '.*, which is no num"):
        get(root, archives[:1])
    assert len(server.requests) == 5


def test_no_range_where_none_was_asked_for(root: Path, archives: list[Archive], server: FileServer):
    server.plan = [416]
    with pytest.raises(FileNotFoundError, match=r"07trainval.tar: the server answers 416 .*; try another server"):
        get(root, archives[:1])


def test_words_of_a_server_do_not_reach_the_terminal_as_they_are(
    root: Path, archives: list[Archive], server: FileServer
):
    server.plan, server.reason = [404], "\x1b[31mGone"
    with pytest.raises(FileNotFoundError) as caught:
        get(root, archives[:1])
    assert r"answers 404 \x1b[31mGone" in str(caught.value)


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "[", "localhost:port", "local host"])
def test_addresses_that_are_none(root: Path, archives: list[Archive], host: str):
    with pytest.raises(ValueError, match=r"07trainval.tar is no address: "):
        get(root, archives[:1], mirror=f"http://{host}")


def test_no_server(root: Path, archives: list[Archive]):
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/07trainval.tar: cannot be reached: .*0 bytes"):
        get(root, archives, mirror="http://127.0.0.1:9")


@pytest.mark.parametrize("url", ["file:///etc", "ftp://127.0.0.1", "data"])
def test_other_protocols_are_refused(root: Path, archives: list[Archive], url: str):
    with pytest.raises(ValueError, match=f"must begin with http:// or https://, got '{url}"):
        get(root, archives, mirror=url)


@given(st.lists(st.integers(0, 3000), max_size=4), st.booleans(), st.booleans())
def test_wherever_the_connection_is_cut_the_file_is_whole(cuts: list[int], ranges: bool, length: bool):
    content = bytes(i * i % 251 for i in range(5000))
    with tempfile.TemporaryDirectory() as folder, serving(FileServer({"a.tar": content}, ranges, length)) as server:
        server.plan = [("cut", cut) for cut in cuts]
        path = Path(folder) / "a.tar"
        # Without a length a cut looks like the end, which only the check sum tells.
        if length or not cuts:
            fetch(f"{server.url}/a.tar", path, md5(content), progress=False, pause=lambda _: None)
            assert path.read_bytes() == content
            assert server.sent == len(content) or not ranges
        else:
            with pytest.raises(ValueError, match="has the MD5 sum"):
                fetch(f"{server.url}/a.tar", path, md5(content), progress=False, pause=lambda _: None)
            assert files_of(Path(folder)) == []


# ---- wrong files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuts", "requests"), [(0, 1), (1, 3)])  # what came in pieces gets a second chance
def test_a_wrong_file_is_not_kept(root: Path, archives: list[Archive], server: FileServer, cuts: int, requests: int):
    wrong = b"<html>Please log in</html>" * 500
    server.files["07trainval.tar"] = wrong
    server.plan = [("cut", 3500)] * cuts
    with pytest.raises(ValueError, match=r"07trainval\.tar from http") as caught:
        get(root, archives)
    for part in (md5(wrong), archives[0].md5, "the file was removed"):
        assert part in str(caught.value)
    assert files_of(root) == []
    assert len(server.requests) == requests


def test_a_damaged_archive_is_named_and_left(root: Path, archives: list[Archive], server: FileServer):
    (root / "downloads").mkdir(parents=True)
    path = root / "downloads" / "07trainval.tar"
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"07trainval.tar has the MD5 sum \w+, expected \w+: remove the file"):
        get(root, archives)
    assert path.read_bytes() == b"damaged"
    assert server.requests == []


def test_an_archive_that_lacks_images(root: Path, archives: list[Archive], server: FileServer):
    more = Archive(archives[0].url, archives[0].md5, "VOC2007", "trainval", 3)
    with pytest.raises(ValueError, match="has not all 3 images of its set"):
        get(root, [more])


def test_an_old_python(root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(OSError, match=r"use 3\.10\.12"):
        get(root, archives)
    assert server.requests == []
    with pytest.raises(OSError, match=r"use 3\.10\.12"):
        unpack(root / "any.tar", root, "VOC2007", progress=False)


# ---- the disk --------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def test_too_small_a_disk_is_told_beforehand(
    root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    size = len(server.files["07trainval.tar"])
    for free, fits in ((2 * size - 1, False), (2 * size, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(10**9, 0, free))
        if fits:
            get(root, archives[:1])
        else:
            with pytest.raises(OSError, match=r"the disk of .*downloads has [\d.]+kB of free space, and [\d.]+kB are"):
                get(root, archives[:1])
            assert files_of(root) == []
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_disk_that_fills_during_the_download(
    root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    class Filling(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() >= 3500:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(bytes(data)[: 3500 - self.tell()])

    def on_full_disk(path: Any, mode: str = "r") -> Any:
        return io.BufferedWriter(Filling(path, mode), 512) if mode in ("ab", "wb") else builtins.open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(download, "open", on_full_disk, raising=False)
        with pytest.raises(OSError, match="No space left on device; what was downloaded is kept; make room") as caught:
            get(root, archives)
    assert caught.value.errno == errno.ENOSPC
    assert str(caught.value.filename).endswith("07trainval.tar.part")
    assert len(server.requests) == 1
    part = root / "downloads" / "07trainval.tar.part"
    assert part.read_bytes() == server.files["07trainval.tar"][:3500]
    get(root, archives)
    assert server.requests[1] == ("07trainval.tar", "bytes=3500-")
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_a_disk_that_fills_while_unpacking(
    root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "makefile", full)
        with pytest.raises(OSError, match=r"No space left on device; run again when that is mended: .*07trainval\.tar"):
            get(root, archives)
    assert files_of(root) == ["downloads/07trainval.tar"]
    assert not list(root.glob(".VOC*"))
    get(root, archives[:1])
    assert len(server.requests) == 1  # not downloaded again
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]


def test_what_a_killed_run_left_is_cleared_away(root: Path, archives: list[Archive], server: FileServer):
    left = root / ".VOC2007.part" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"half")
    get(root, archives[:1])
    assert [path.name for path in root.iterdir()] == ["VOC2007"]
    assert not (root / "VOC2007" / "JPEGImages" / "half.jpg").exists()


def test_a_run_that_stops_while_it_moves_files_is_completed(
    root: Path, archives: list[Archive], server: FileServer, monkeypatch: pytest.MonkeyPatch
):
    moved = []

    def replace(source: Path, target: Path) -> None:
        if len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(download.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            get(root, archives[:1])
    get(root, archives[:1])
    assert VOCDataset(root / "VOC2007", "trainval").ids == ["a", "b"]
    assert sorted(path.name for path in root.iterdir()) == ["VOC2007"]

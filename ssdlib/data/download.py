"""Download of the PASCAL VOC archives: resumed, checked and unpacked so that what is in place is whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tqdm import tqdm

from ssdlib.data.names import said, shown
from ssdlib.data.voc import annotation_path, read_image_set

_BLOCK = 1 << 20  # bytes
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # in a row that bring nothing new
_LARGEST = 8 << 30  # bytes of a file whose size is not known beforehand


@dataclass(frozen=True)
class Archive:
    """One published archive.

    Attributes:
        url: where its makers publish it.
        md5: of the file. It finds damage; against forgery, HTTPS must help.
        folder: name of the data set in the archive, below VOCdevkit.
        image_set: the set that the archive brings.
        images: how many images that set has.
        size: of the file in bytes, if it is known.
    """

    url: str
    md5: str
    folder: str
    image_set: str
    images: int
    size: int | None = None

    @property
    def filename(self) -> str:
        """Last part of the URL."""
        return self.url.rsplit("/", 1)[1]


_HOST = "https://thor.robots.ox.ac.uk/pascal/VOC"

VOC_ARCHIVES: dict[str, Archive] = {
    "2007-trainval": Archive(
        f"{_HOST}/voc2007/VOCtrainval_06-Nov-2007.tar",
        "c52e279531787c972589f7e41ab4ae64",
        "VOC2007",
        "trainval",
        5011,
        460032000,
    ),
    "2007-test": Archive(
        f"{_HOST}/voc2007/VOCtest_06-Nov-2007.tar",
        "b6e924de25625d8de591ea690078ad9f",
        "VOC2007",
        "test",
        4952,
        451020800,
    ),
    "2012-trainval": Archive(
        f"{_HOST}/voc2012/VOCtrainval_11-May-2012.tar",
        "6cd6e144f989b92b3379bac3b3de84fd",
        "VOC2012",
        "trainval",
        11540,
        1999639040,
    ),
}


def download_voc(
    root: str | os.PathLike[str],
    archives: Iterable[Archive] = tuple(VOC_ARCHIVES.values()),
    *,
    mirror: str | None = None,
    keep: bool = False,
    progress: bool = True,
    pause: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Download and unpack archives of PASCAL VOC, and return the folders: `root/VOC2007`, `root/VOC2012`.

    What is there is skipped. A download that was cut off goes on where it stopped, in this run or in the next one.
    An archive that was fetched by other means is taken from `root/downloads`. It is unpacked aside and moved into
    place file by file; a folder counts as there when its image set, and every file that this names, is.

    Args:
        root: folder for the data sets.
        archives: those of `VOC_ARCHIVES`, or some of them.
        mirror: URL of a folder that has the archives, in place of the makers' server.
        keep: leave the archives in `root/downloads`.
        progress: show bars on stderr.
        pause: waits for some seconds between attempts.

    Raises:
        ValueError: an archive has the wrong check sum, cannot be read, has a member that is not a file or folder
            below its data set, or lacks images; or the URL is not one of HTTP.
        OSError: the server cannot be reached or has no such file, or the disk is full. What was downloaded is kept.
    """
    root = Path(root)
    folders = []
    for archive in archives:
        folder = root / archive.folder
        if not is_complete(folder, archive):
            _require_safe_unpacking()  # before hours of download
            path = root / "downloads" / archive.filename
            url = archive.url if mirror is None else f"{mirror.rstrip('/')}/{archive.filename}"
            fetch(url, path, archive.md5, archive.size, progress=progress, pause=pause)
            unpack(path, root, archive.folder, progress=progress)
            if not is_complete(folder, archive):
                raise ValueError(f"{path} was unpacked, but {folder} has not all {archive.images} images of its set")
            if not keep:
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
        if folder not in folders:
            folders.append(folder)
    return folders


def is_complete(folder: Path, archive: Archive) -> bool:
    """Whether a folder has the image set of an archive, and each annotation and image that the set names."""
    try:
        ids = read_image_set(folder, archive.image_set)
    except (OSError, ValueError):
        return False
    files = [path for i in ids for path in (annotation_path(folder, i), folder / "JPEGImages" / f"{i}.jpg")]
    return len(ids) == archive.images and all(path.is_file() for path in files)


def fetch(
    url: str,
    path: Path,
    md5: str,
    size: int | None = None,
    *,
    progress: bool = True,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Download a file to `path`, through `<name>.part` beside it, unless it is there; check its sum either way.

    A wrong sum of a file that was fetched in pieces may come from pieces of two versions: it is then fetched anew.
    A wrong sum after that is an error, and the file is removed. A server that sends more than `size` bytes, or
    announces so, is not listened to any longer.

    Raises:
        ValueError: the check sum of the file is wrong, the server has a file that is larger than `size` (or than 8 GiB
            if that is not known), or the URL is not one of HTTP.
        OSError: as :func:`download_voc` says.
    """
    if not _is_http(url):
        raise ValueError(f"the URL must begin with http:// or https://, got {url!r}")
    if path.exists():
        _check_sum(path, path, md5)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for again in (True, False):
        in_pieces = _download(url, part, size or _LARGEST, progress, pause)
        try:
            _check_sum(part, path, md5, url)
            break
        except ValueError:
            part.unlink()
            if not (in_pieces and again):
                raise
    os.replace(part, path)


def _check_sum(path: Path, name: Path, expected: str, url: str | None = None) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != expected:
        advice = "remove the file and run again" if url is None else "the file was removed; try another --url"
        raise ValueError(
            f"{name}{f' from {url}' if url else ''} has the MD5 sum {digest.hexdigest()}, expected {expected}: {advice}"
        )


def _download(url: str, part: Path, most: int, progress: bool, pause: Callable[[float], None]) -> bool:
    """Bring `part` to its full length, in as many requests as it takes; return whether it is made of pieces."""
    if _size(part) > most:  # of another file
        part.unlink()
    longest = _size(part)
    in_pieces, failures = longest > 0, 0
    while (problem := _request(url, part, most, progress)) is not None:
        size = _size(part)
        failures, longest = (0, size) if size > longest else (failures + 1, longest)
        if failures == _ATTEMPTS:
            raise ConnectionError(f"{url}: {problem}; {size} bytes are kept in {part}: run again to go on")
        seconds = 2.0**failures
        if progress:
            tqdm.write(f"{problem}; trying again in {seconds:.0f} s", file=sys.stderr)
        pause(seconds)
        in_pieces = in_pieces or size > 0
    return in_pieces


class _Redirections(HTTPRedirectHandler):
    """Follow a server to another address, but not to another protocol, and without reading what it says of that."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        """The request for the new address, None for an address that is not one of HTTP: then the answer is an error."""
        return super().redirect_request(req, fp, code, msg, headers, newurl) if _is_http(newurl) else None

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """As the base class, which reads the whole body: that may have no end."""
        fp.read = lambda *_: b""
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


_OPENER = build_opener(_Redirections)


def _is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def _request(url: str, part: Path, most: int, progress: bool) -> str | None:
    """One request for what is missing; None if the file is complete then, or what cut it short."""
    have = _size(part)
    try:
        request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        response = _OPENER.open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing is left to send, if `part` is of this file; its sum will tell
            return None
        answer = f"the server answers {error.code} {said(error.reason)}"
        if error.code >= 500 or error.code in (408, 429):
            return answer
        raise FileNotFoundError(f"{url}: {answer}; try another server with --url") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise ValueError(f"{url} is no address: {said(error)}") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        return f"cannot be reached: {said(getattr(error, 'reason', error))}"
    with response:
        if response.status != 206:  # the whole file, from its beginning
            have = 0
        length = response.headers.get("Content-Length")
        if length and not re.fullmatch("[0-9]{1,15}", length.strip()):
            return f"the server announces a length of {shown(length)}, which is no number of bytes"
        total = have + int(length) if length else None
        if total is not None and total > most:
            raise ValueError(f"{url}: the server has a file of {total} bytes, and {most} are the most that is expected")
        if total is not None:
            # The archive stays until it is unpacked, and is not compressed.
            _check_space(part.parent, 2 * total - have, f"download and unpack {url}")
        return _receive(response, url, part, have, total, most, progress)


def _receive(
    response: http.client.HTTPResponse,
    url: str,
    part: Path,
    have: int,
    total: int | None,
    most: int,
    progress: bool,
) -> str | None:
    try:
        with (
            open(part, "ab" if have else "wb") as file,
            tqdm(total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, disable=not progress) as bar,
        ):
            while True:
                try:
                    block = response.read(_BLOCK)
                except (OSError, http.client.HTTPException) as error:
                    return f"the connection was cut: {str(error) or type(error).__name__}"
                if not block:
                    break
                file.write(block)
                have += len(block)
                if have > most:
                    break
                bar.update(len(block))
    except OSError as error:  # of writing: those of reading have returned
        advice = "what was downloaded is kept; make room and run again to go on"
        raise OSError(error.errno, f"{error.strerror}; {advice}", str(part)) from None
    if have > most:
        part.unlink()
        raise ValueError(
            f"{url}: the server sends more than the {most} bytes that are expected; nothing of it was kept"
        )
    return None if total in (None, have) else f"the connection was cut at {have} of {total} bytes"


def unpack(path: Path, root: Path, name: str, *, progress: bool = True) -> None:
    """Unpack the folder `VOCdevkit/<name>` of a tar archive to `root/<name>`, aside first; files there are replaced.

    Raises:
        ValueError: it is no tar archive, or a member is not a file or folder below `VOCdevkit/<name>`, or is one with
            holes. Nothing of the archive is in place then.
        OSError: the disk is full; or this Python is too old to unpack safely (before 3.10.12 and 3.11.4).
    """
    _require_safe_unpacking()
    aside = root / f".{name}.part"
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
    _check_space(root, path.stat().st_size, f"unpack {path}")
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tqdm(tar, desc=f"unpacking {path.name}", unit="file", disable=not progress):
                _refuse_strangers(path, member, name)
                tar.extract(member, aside, filter="data")
        top = aside / "VOCdevkit" / name
        for source in sorted(top.rglob("*")):
            target = root / name / source.relative_to(top)
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                os.replace(source, target)
    except _StrangeMember:
        raise
    except (tarfile.TarError, ArithmeticError, LookupError, ValueError) as error:
        raise ValueError(f"{path} cannot be unpacked: {said(error)}; remove it and run again") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; run again when that is mended", str(path)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _require_safe_unpacking() -> None:
    if not hasattr(tarfile, "data_filter"):
        raise OSError("this Python cannot unpack archives safely: use 3.10.12, 3.11.4, 3.12 or a later one")


class _StrangeMember(ValueError):
    """A member of an archive that is not taken."""


def _refuse_strangers(path: Path, member: tarfile.TarInfo, name: str) -> None:
    parts = PurePosixPath(member.name).parts
    inside = parts[:2] == ("VOCdevkit", name)[: len(parts)] and ".." not in parts
    folder_itself = len(parts) <= 2 and not member.isdir()  # a file in place of a folder, the one to unpack to or above
    if not inside or folder_itself or member.issparse() or not (member.isfile() or member.isdir()):
        raise _StrangeMember(f"{path}: the member {shown(member.name)} is not a file or folder below VOCdevkit/{name}")


def _check_space(folder: Path, needed: int, purpose: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        need, have = (tqdm.format_sizeof(size, "B") for size in (needed, free))
        raise OSError(f"the disk of {folder} has {have} of free space, and {need} are needed to {purpose}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

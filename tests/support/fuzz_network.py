"""Hostile servers and archives."""

from __future__ import annotations

import hashlib
import io
import random
import socket
import tarfile
import threading
from functools import cache
from pathlib import Path

from support import fuzzing
from support.fuzzing import mutated_bytes, refused

from ssdlib.data import download
from ssdlib.data.download import fetch, unpack

CONTENT = bytes(i * i % 251 for i in range(5000))
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class RawServer:
    """Answers each connection with the next of `answers`, whatever is asked; then the connection ends."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/a.tar"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            with connection:
                try:
                    connection.settimeout(2)
                    request = connection.recv(65536)
                    answer = self.answers.pop(0) if self.answers else b""
                    start = request.partition(b"Range: bytes=")[2].partition(b"-")[0]
                    connection.sendall(answer.replace(b"@START@", start or b"0"))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # or the answer may be lost in a reset
                        pass
                except OSError:
                    continue


@cache
def _server() -> RawServer:
    return RawServer()


def _answer(rng: random.Random) -> bytes:
    status = rng.choice([b"200 OK"] * 8 + [b"206 Partial"] * 3 + [b"404 \x1b[31mNo", b"416 No", b"503 Busy", b"301 Go"])
    status = rng.choice(
        [status] * 9 + [b"999 X", b"-1 X", b"abc", b"100 Continue", b"204 None", b"200" + b"A" * 70_000]
    )
    body = rng.choice(
        [CONTENT] * 4 + [CONTENT[:3000], CONTENT * 3, b"", rng.randbytes(5000), CONTENT[2000:], b"x" * 10**6]
    )
    length = rng.choice(
        [b"%d" % len(body)] * 5 + [b"abc", b"-5", b"9" * 40, b"0", b"5000", b"5000, 5000", b"", b"\xff"]
    )
    headers = [b"Content-Length: " + length] if rng.random() < 0.8 else []
    if rng.random() < 0.1:
        headers.append(b"Transfer-Encoding: chunked")
    if rng.random() < 0.1:
        headers.append(b"Content-Range: bytes @START@-4999/5000")
    if b"301" in status:
        targets = [
            b"file:///etc/passwd",
            b"ftp://127.0.0.1:9/a",
            b"http://[",
            b"gopher://x",
            b"/a.tar",
            b"\x1b[31m",
            b"",
        ]
        headers.append(b"Location: " + rng.choice(targets))
    headers += [b"X: " + rng.randbytes(5)] * rng.choice([0, 0, 0, 1, 200])
    answer = b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(headers) + b"\r\n\r\n" + body
    return mutated_bytes(rng, answer) if rng.random() < 0.2 else answer


def downloads(rng: random.Random, folder: Path) -> str:
    """A server whose answers are odd; in the end the file is whole, or is not there."""
    server = _server()
    server.answers[:] = [_answer(rng) for _ in range(rng.randrange(1, 8))]
    path = folder / "downloads" / "a.tar"
    if rng.random() < 0.3:
        path.parent.mkdir()
        path.with_name("a.tar.part").write_bytes(CONTENT[:2000] if rng.random() < 0.7 else rng.randbytes(9000))
    size = rng.choice([5000, 5000, None])

    def get() -> None:
        fetch(server.url, path, MD5, size, progress=False, pause=lambda _: None)
        assert path.read_bytes() == CONTENT

    largest, download._LARGEST = download._LARGEST, 300_000
    block, download._BLOCK = download._BLOCK, 1000
    try:
        outcome = "refused" if refused(get, server.url) else "accepted"
    finally:
        download._LARGEST, download._BLOCK = largest, block
    left = {entry.name: entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()}
    assert set(left) <= {"a.tar" if outcome == "accepted" else "a.tar.part"}, left
    assert sum(left.values()) <= (size or 300_000), left
    return outcome


def _archive(rng: random.Random) -> bytes:
    kinds = [tarfile.REGTYPE] * 6 + [
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
    ]
    kinds += [tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE, tarfile.GNUTYPE_LONGNAME, b"x", b"g", b"\xff"]
    names = ["VOCdevkit/VOC2007/a", "VOCdevkit/VOC2007/b/c", "VOCdevkit/VOC2007", "VOCdevkit", "VOCdevkit/VOC2007/a/d"]
    odd = [
        "../evil",
        "/evil",
        "VOCdevkit/../evil",
        "VOCdevkit/VOC2007/../../evil",
        "VOCdevkit/VOC2007\\..\\evil",
        "",
        ".",
    ]
    odd += [
        "VOCdevkit/VOC2007/" + "n" * 300,
        "VOCdevkit/VOC2007/\x1b[31m",
        "VOCdevkit/VOC2007/" + "d/" * 300,
        "C:/evil",
    ]
    odd += ["VOCdevkit/VOC2007/" + text for text in fuzzing.TEXTS[:8]]
    buffer = io.BytesIO()
    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice(formats), errors="surrogateescape") as tar:
        for _ in range(rng.randrange(1, 5)):
            info = tarfile.TarInfo(rng.choice(odd) if rng.random() < 0.2 else rng.choice(names))
            info.type = rng.choice(kinds) if rng.random() < 0.5 else tarfile.REGTYPE
            info.linkname = rng.choice(["", "/etc/passwd", "../../..", "a"])
            info.size = rng.choice([0, 5, 600])
            info.mtime = rng.choice([0, 10**9, 2**33, -1, 10**20, 0.5])
            info.mode = rng.choice([0o644, 0o7777, 0, 0o4755])
            try:
                tar.addfile(info, io.BytesIO(b"hello" * 200))
            except (ValueError, OverflowError, UnicodeError, OSError):
                continue  # tarfile cannot write it
    return buffer.getvalue()


def archives(rng: random.Random, folder: Path) -> str:
    """An archive with odd members, or with changed bytes; nothing is written but files below root/VOC2007."""
    content = _archive(rng)
    path, root = folder / "evil.tar", folder / "outer" / "root"
    if rng.random() < 0.5:
        content = _with_sums(mutated_bytes(rng, content)) if rng.random() < 0.7 else mutated_bytes(rng, content)
    path.write_bytes(content)
    root.mkdir(parents=True)
    outcome = "refused" if refused(lambda: unpack(path, root, "VOC2007", progress=False), path) else "accepted"
    for entry in folder.rglob("*"):
        if entry not in (path, root, root.parent):
            assert entry.relative_to(root).parts[0] == "VOC2007", f"{entry} was written"
            assert not entry.is_symlink()
            assert entry.is_dir() or entry.is_file()
    if outcome == "accepted":
        assert sum(entry.stat().st_size for entry in root.rglob("*") if entry.is_file()) <= len(content)
    return outcome


def _with_sums(content: bytes) -> bytes:
    """A tar archive whose blocks that look like heads have the right check sum."""
    data = bytearray(content)
    for start in range(0, len(data) - 511, 512):
        head = data[start : start + 512]
        if head[257:262] == b"ustar":
            head[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(head)
    return bytes(data)


AREAS = [fuzzing.Area("downloads", downloads, few=100), fuzzing.Area("archives", archives)]

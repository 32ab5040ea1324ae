"""What the page "Your photograph" runs on: made once, kept in the user's cache, and copied into each site.

The runtime comes out of the npm package `onnxruntime-web` (MIT), whose tarball is checked by its sum and never
unpacked. The network is the SSD of Open Images (`ssdlib.zoo.openimages`) as ONNX with its raw outputs, offsets and
logits, as the page shows what comes after them. Its weights were float16 numbers when they were published, so they are
stored as such, and turned into float32 when the file is loaded: half the size, and the same predictions.

Runtime and network are stored compressed, and the page's worker unpacks them: servers need not. The runtime is kept by
itself: another network does not fetch it again.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ssdlib import backbones, model, priors
from ssdlib.deploy import export
from ssdlib.deploy.extras import require
from ssdlib.plotting import to_pil
from ssdlib.zoo import openimages
from ssdlib.zoo.npm import pack, read_members, require_sum, tarball_name
from ssdlib.zoo.photographs import PHOTOGRAPHS, photograph_pixels

RUNTIME, RUNTIME_VERSION = "onnxruntime-web", "1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of the tarball
MEMBERS = {
    "package/dist/ort.wasm.bundle.min.mjs": "runtime.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "runtime.bin",
}
_LARGEST = 20_000_000  # bytes of a member
_WEEK = 7 * 24 * 3600  # seconds
_PATIENCE = 180  # seconds for npm: a build goes on without

FILES = {"script": "runtime.js", "runtime": "runtime.bin", "model": "model.bin"}
ABOUT = "about.json"
BUILT_IN = "runtime_notices.txt"
NOTICE = f"""What the page "Your photograph" runs on, and its terms

runtime.js, runtime.bin (gzip): ONNX Runtime Web, npm {RUNTIME} {RUNTIME_VERSION}
Copyright (c) Microsoft Corporation. MIT License:
{{mit}}
{BUILT_IN}: the terms of what is built into ONNX Runtime, as its package for Python {{version}} has them
(the one for browsers comes without)

model.bin (gzip): the weights of npm {openimages.PACKAGE} {openimages.VERSION}, converted to ONNX
Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0
(so its package.json says; there is no licence file in the package)

{{samples}}
"""


def files(*, progress: bool = True) -> Path:
    """The folder with all files, from the user's cache; what is missing is fetched and made first.

    Raises:
        OSError: if a package cannot be fetched.
        ValueError: if a package is another than the one that was checked, or what exports to ONNX is not installed.
        ImportError: if a package that has a sample photograph is not installed.
    """
    return kept(f"photograph-{fingerprint()}", lambda folder: make(folder, progress=progress))


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """A folder of the user's cache; where it is not there `fill` makes it, and it appears as a whole or not at all."""
    folder = openimages.cached_file().parent / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder.parent / f"{name.partition('-')[0]}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
                made = Path(beside) / "made"
                made.mkdir()
                fill(made)
                os.rename(made, folder)
            forget_old(folder)
    with suppress(OSError):  # a cache that may only be read
        os.utime(folder)  # in use
    return folder


def forget_old(folder: Path) -> None:
    """Remove what an earlier version kept in a folder beside this one, unless it was used within a week.

    Several checkouts of the book share a cache: what another one uses stays.
    """
    for other in folder.parent.glob(f"{folder.name.partition('-')[0]}-*"):
        if other != folder and other.is_dir() and time.time() - other.stat().st_mtime > _WEEK:
            shutil.rmtree(other, ignore_errors=True)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of several processes one at a time, where the system has such locks: tests and a build want the same files."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(path, "w", encoding="utf-8") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Changes when what is made would."""
    modules = (backbones, model, priors, export, openimages)
    texts = [RUNTIME_SHA256, openimages.MODEL_SHA256, Path(__file__).read_text(encoding="utf-8")]
    return hashlib.sha256("".join([*texts, *map(inspect.getsource, modules)]).encode()).hexdigest()[:12]


def make(folder: Path, *, progress: bool = True) -> None:
    """Write all files into a folder."""
    fetched = runtime_folder(progress=progress)
    network = openimages.openimages_model(progress=progress)
    exact = folder.parent / "exact.onnx"
    export.write_onnx(network, exact, "raw")
    graph = halved(exact.read_bytes())
    (folder / FILES["model"]).write_bytes(gzip.compress(graph, 9, mtime=0))
    for file in fetched.iterdir():
        shutil.copyfile(file, folder / file.name)
    for name in PHOTOGRAPHS:
        to_pil(photograph_pixels(name)).save(folder / f"{name}.png")
    runtime = require("onnxruntime", "onnx")
    (folder / "NOTICE.txt").write_text(notice(runtime.__version__), encoding="utf-8")
    shutil.copyfile(Path(runtime.__file__).parent / "ThirdPartyNotices.txt", folder / BUILT_IN)
    stored_sizes = sum((folder / name).stat().st_size for name in FILES.values())
    sizes = {
        "fetched": stored_sizes,
        "model": len(graph),
        "runtime": len(gzip.decompress((folder / FILES["runtime"]).read_bytes()))
        + (folder / FILES["script"]).stat().st_size,
    }
    about = {"version": fingerprint(), "files": FILES, "sizes": sizes, **facts(network)}
    about["samples"] = [sample_about(name) for name in PHOTOGRAPHS]
    (folder / ABOUT).write_text(json.dumps(about, sort_keys=True), encoding="utf-8")


def notice(version: str) -> str:
    """Whose all of it is, and under which terms; ONNX Runtime for Python has this version."""
    licence = (Path(__file__).resolve().parents[2] / "LICENSE").read_text(encoding="utf-8")
    mit = licence[licence.index("Permission is hereby granted") :]  # ours is the same
    samples = "\n".join("{file}: {name}, {credit}".format(**sample_about(name)) for name in PHOTOGRAPHS)
    return NOTICE.format(mit=mit, version=version, samples=samples)


def runtime_folder(*, progress: bool = True) -> Path:
    """The folder with the runtime's script and its WebAssembly, compressed; fetched once."""

    def fill(folder: Path) -> None:
        for name, content in runtime_files(folder.parent, progress=progress).items():
            stored = gzip.compress(content, 9, mtime=0) if name.endswith(".bin") else content
            (folder / name).write_bytes(stored)

    return kept(f"{RUNTIME}-{RUNTIME_VERSION}-{RUNTIME_SHA256[:12]}", fill)


def runtime_files(folder: Path, *, progress: bool = True) -> dict[str, bytes]:
    """The runtime's script and its WebAssembly, out of the package."""
    tarball = tarball_name(RUNTIME, RUNTIME_VERSION)
    advice = f"the page runs where npm can fetch {tarball}"
    path = pack(RUNTIME, RUNTIME_VERSION, folder, advice=advice, size="33 MB", progress=progress, patience=_PATIENCE)
    content = path.read_bytes()
    require_sum(content, RUNTIME_SHA256, path)
    found = read_members(content, MEMBERS, _LARGEST)
    return {MEMBERS[name]: member for name, member in found.items()}


def halved(graph: bytes) -> bytes:
    """An ONNX file whose float32 weights are float16 numbers, stored as such.

    Raises:
        ValueError: if a weight would lose something.
    """
    onnx = require("onnx", "onnx")
    proto = onnx.load_from_string(graph)
    casts = []
    for weight in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < 16:
            continue
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            raise ValueError(f"{weight.name} does not fit into float16")
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    for node in nodes:
        del node.metadata_props[:]  # where in PyTorch it comes from
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def facts(network: model.SSD) -> dict[str, Any]:
    """What the page has to know of the network: its classes, and the cells and shapes of its priors."""
    recipe, boxes = network.recipe, network.priors.tolist()
    maps, start = [], 0
    for cells, count in zip(recipe.map_sizes, recipe.priors_per_cell, strict=True):
        maps.append({"cells": cells, "shapes": [box[2:] for box in boxes[start : start + count]]})
        start += cells * cells * count
    return {"classes": list(network.classes), "maps": maps, "side": recipe.image_size}


def sample_about(name: str) -> dict[str, str]:
    """What the page has to know of a sample photograph."""
    shows, author_and_terms, package = PHOTOGRAPHS[name]
    return {
        "file": f"{name}.png",
        "name": shows[0].upper() + shows[1:],
        "credit": f"{author_and_terms}; from {package}.",
    }

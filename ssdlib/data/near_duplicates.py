"""Images of one scene: the same file twice, the same picture saved twice, or the next photograph of a series."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssdlib.data.images import load_thumbnail, read_file
from ssdlib.data.threads import in_threads

THRESHOLD = 10  # bits of 64 in which two hashes may differ
ALIKE = 0.7  # least correlation of the small gray pictures: a hash alone takes some strangers for twins
_SIDE = 32
_CHUNK = 256


class Look(NamedTuple):
    """What of N images is compared: hashes (N, 64) bool, small gray pictures (N, 1024), and SHA-256 of the files."""

    hashes: npt.NDArray[np.bool_]
    small: npt.NDArray[np.float16]
    digests: list[bytes]


def difference_hash(gray: Image.Image) -> npt.NDArray[np.bool_]:
    """(64,) bits of a gray picture: on a grid of 8 rows, whether each of 9 cells is darker than its right neighbour.

    Scaling, compression and brightness hardly change it.

    Source: Krawetz, "Kind of like that" (2013).
    """
    cells = np.asarray(gray.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return (cells[:, 1:] > cells[:, :-1]).ravel()


def look(paths: Sequence[tuple[Path, bool]], progress: bool = True) -> Look:
    """Look at images, given by path and whether to turn them upright.

    Raises:
        ValueError: an image cannot be decoded; the message names it.
    """

    def one(item: tuple[Path, bool]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32], bytes]:
        path, upright = item
        gray = load_thumbnail(path, 2 * _SIDE, upright).convert("L")
        pixels = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32).ravel()
        pixels -= pixels.mean()
        norm = np.linalg.norm(pixels)
        return difference_hash(gray), pixels / norm if norm else pixels, hashlib.sha256(read_file(path)).digest()

    found = list(in_threads(one, paths, "looking", progress))
    return Look(
        np.array([bits for bits, _, _ in found], dtype=np.bool_).reshape(-1, 64),
        np.array([pixels for _, pixels, _ in found], dtype=np.float16).reshape(-1, _SIDE**2),
        [digest for _, _, digest in found],
    )


def groups_of(
    seen: Look, threshold: int = THRESHOLD, alike: float = ALIKE, together: Sequence[str | None] = ()
) -> list[list[int]]:
    """Sort images into groups of near-duplicates: each image is in one, most are alone.

    Two images belong together if their files are the same, or if their hashes differ in at most `threshold` bits and
    their small pictures correlate by `alike` or more, or if `together` has the same text for both; and so do all that
    are linked by such pairs.

    Returns:
        Indices, ascending in each group; the groups in the order of their first image.
    """
    leader = list(range(len(seen.digests)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    first: dict[bytes | str, int] = {}
    for keys in (seen.digests, together):
        for i, key in enumerate(keys):
            if key is not None:
                leader[find(i)] = find(first.setdefault(key, i))
    signs = np.where(seen.hashes, 1, -1).astype(np.float32)  # (N, 64): a product of two is 64 - 2 * differing bits
    for start in range(0, len(signs), _CHUNK):
        part = slice(start, start + _CHUNK)
        close = signs[part] @ signs.T >= 64 - 2 * threshold
        for a, b in zip(*np.nonzero(close), strict=True):
            i, j = start + int(a), int(b)
            if i < j and find(i) != find(j):
                first_small, second_small = seen.small[[i, j]].astype(np.float32)
                if float(first_small @ second_small) >= alike:
                    leader[find(j)] = find(i)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(leader)):
        groups[find(i)].append(i)
    return sorted(groups.values())

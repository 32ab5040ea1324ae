"""Images of one scene: the same file twice, the same picture saved twice, or the next photograph of a series."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
_TILE = 512, 2048  # images that are compared with images at a time


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
    leader = np.arange(len(seen.digests))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = int(leader[i])
        return i

    first: dict[bytes | str, int] = {}
    for keys in (seen.digests, together):
        for i, key in enumerate(keys):
            if key is not None:
                leader[find(i)] = find(first.setdefault(key, i))
    for pairs in _close(seen, threshold, alike):
        while True:  # up to the leaders, all at once: of many pairs of one series, few links stay to be made
            above = leader[pairs]
            if (above == pairs).all():
                break
            pairs = above
        for i, j in np.unique(pairs[:, pairs[0] != pairs[1]], axis=1).T.tolist():
            leader[find(j)] = find(i)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(leader)):
        groups[find(i)].append(i)
    return sorted(groups.values())


def _close(seen: Look, threshold: int, alike: float) -> Iterator[npt.NDArray[np.int64]]:
    """Pairs (2, K) of images, i before j, whose hashes and small pictures are close, some thousand images at a time.

    All pairs of hashes are compared, 2 ns each. An index by eleven parts of the hash, one of which is equal where ten
    bits differ, loses none either, but it still names a fifth of the pairs of photographs, and looking one up costs
    twenty times as much.
    """
    signs = np.where(seen.hashes, 1, -1).astype(np.float32)  # (N, 64): a product of two is 64 - 2 * differing bits
    rows, columns = _TILE
    for top in range(0, len(signs), rows):
        for left in range(top, len(signs), columns):
            close = signs[top : top + rows] @ signs[left : left + columns].T >= 64 - 2 * threshold
            i, j = np.divmod(np.flatnonzero(close), close.shape[1])
            later = top + i < left + j
            i, j = i[later], j[later]
            # One product for all images of the tile that are in some pair: the same few are in many of them.
            (some, i), (others, j) = np.unique(i, return_inverse=True), np.unique(j, return_inverse=True)
            alikeness = seen.small[top + some].astype(np.float32) @ seen.small[left + others].astype(np.float32).T
            both = alikeness[i, j] >= alike
            yield np.stack([top + some[i[both]], left + others[j[both]]])

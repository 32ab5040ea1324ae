"""Sets by scene and by class: near-duplicates found in real and made pictures, shares, and what is written."""

from __future__ import annotations

import errno
import json
import math
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from support.bccd import BCCD_ROOT, needs_bccd
from support.coco_folder import annotation, image, write_coco
from support.voc_folder import object_xml, write_annotation, write_image, write_voc

from ssdlib.data import check_dataset, near_duplicates, open_dataset, split_dataset
from ssdlib.data.near_duplicates import Look, difference_hash, groups_of, look
from ssdlib.data.split import assign


def scene(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A picture with large forms, as photographs have: noise of 6 x 5 cells, enlarged."""
    cells = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)


# ---- near-duplicates -------------------------------------------------------------------------------------------


def test_difference_hash_by_a_plain_loop():
    gray = scene(1).convert("L")
    cells = np.asarray(gray.resize((9, 8), Image.Resampling.BOX)).tolist()
    assert difference_hash(gray).tolist() == [right > left for row in cells for left, right in pairwise(row)]


def test_groups_of_near_duplicates(tmp_path: Path):
    """The same file, other sizes, brightness, compression and a slight shift belong together; strangers do not."""
    first = scene(1)
    made = {
        "0.png": first,
        "1.png": scene(2),
        "2.jpg": first.resize((200, 150)),
        "3.png": ImageEnhance.Brightness(first).enhance(0.7),
        "4.png": first.crop((2, 2, 120, 90)),
        "5.png": scene(3),
        "6.png": Image.new("RGB", (120, 90), "gray"),
        "7.png": Image.new("RGB", (120, 90), "white"),
    }
    for name, picture in made.items():
        picture.save(tmp_path / name, **({"quality": 40} if name.endswith("jpg") else {}))
    (tmp_path / "8.png").write_bytes((tmp_path / "7.png").read_bytes())
    seen = look([(path, True) for path in sorted(tmp_path.iterdir())], progress=False)
    assert groups_of(seen) == [[0, 2, 3, 4], [1], [5], [6], [7, 8]]
    assert groups_of(seen, threshold=0, alike=2.0) == [[i] for i in range(7)] + [[7, 8]]  # equal files alone


def test_an_image_that_lies_on_its_side(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    scene(1).rotate(90, expand=True).save(tmp_path / "a.png", exif=exif)
    scene(1).save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert groups_of(look([(path, True) for path in paths], progress=False)) == [[0, 1]]
    assert groups_of(look([(path, False) for path in paths], progress=False)) == [[0], [1]]


def groups_by_plain_loops(seen: Look, threshold: int, alike: float, together: list[str | None]) -> list[list[int]]:
    """Every pair is looked at, and groups that a pair links become one."""
    groups = [{i} for i in range(len(seen.digests))]
    for i, j in combinations(range(len(seen.digests)), 2):
        bits = sum(a != b for a, b in zip(seen.hashes[i], seen.hashes[j], strict=True))
        correlation = sum(float(a) * float(b) for a, b in zip(seen.small[i], seen.small[j], strict=True))
        told = bool(together) and together[i] is not None and together[i] == together[j]
        if seen.digests[i] == seen.digests[j] or told or (bits <= threshold and correlation >= alike):
            one, other = (next(group for group in groups if k in group) for k in (i, j))
            if one is not other:
                one |= other
                groups.remove(other)
    return sorted(sorted(group) for group in groups)


@st.composite
def looks(draw: st.DrawFn) -> tuple[Look, list[str | None]]:
    """Images in a few series: hashes some bits from those of the first, and pictures of a few whole numbers."""
    count = draw(st.integers(0, 14))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    series = rng.integers(0, 4, count)
    hashes = (rng.random((4, 64)) < 0.5)[series] ^ (rng.random((count, 64)) < draw(st.sampled_from([0.02, 0.08, 0.2])))
    small = rng.integers(-1, 2, (4, 6))[series] + (rng.random((count, 6)) < 0.2)
    digests = [bytes([n]) for n in rng.integers(0, 40, count)]
    together = [None if n > 2 else str(n) for n in rng.integers(0, 20, count)]
    return Look(hashes, small.astype(np.float16), digests), draw(st.sampled_from([[], together]))


@given(
    given_looks=looks(),
    threshold=st.sampled_from([0, 3, 10, 64]),
    alike=st.sampled_from([-math.inf, 0.0, 2.0, 3.0, 4.0, math.inf]),
    tile=st.sampled_from([(1, 1), (2, 5), (3, 2), (512, 2048)]),
)
def test_groups_are_those_of_plain_loops_however_the_pairs_are_divided(
    given_looks: tuple[Look, list[str | None]], threshold: int, alike: float, tile: tuple[int, int]
):
    seen, together = given_looks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_TILE", tile)
        found = groups_of(seen, threshold, alike, together)
    assert found == groups_by_plain_loops(seen, threshold, alike, together)


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_chain_of_pairs_is_one_group(order: tuple[int, ...]):
    hashes = np.arange(64) < 10 * np.array(order)[:, None]  # each is ten bits from the next one of the chain
    seen = Look(hashes, np.ones((4, 1), dtype=np.float16), [bytes([n]) for n in range(4)])
    assert groups_of(seen) == [[0, 1, 2, 3]]
    assert groups_of(seen, threshold=9) == [[0], [1], [2], [3]]


@needs_bccd
def test_near_duplicates_among_the_blood_cells():
    names = [f"BloodImage_{number:05d}" for number in (37, 38, *range(0, 400, 10))]
    paths = [path for name in names if (path := BCCD_ROOT / "JPEGImages" / f"{name}.jpg").exists()]
    found = groups_of(look([(path, True) for path in paths], progress=False))
    assert [group for group in found if len(group) > 1] == [[0, 1]]
    assert len(paths) > 30


# ---- sets ------------------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], npt.NDArray[np.int64]]:
    """Groups of images, and how many objects of each class an image has."""
    classes = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 4), min_size=3, max_size=25))
    rows = draw(
        st.lists(
            st.lists(st.integers(0, 3), min_size=classes, max_size=classes), min_size=sum(sizes), max_size=sum(sizes)
        )
    )
    ends = np.cumsum([0, *sizes])
    return [list(range(a, b)) for a, b in pairwise(ends.tolist())], np.array(rows)


@given(table=tables(), seed=st.integers(0, 5), shares=st.sampled_from([(0.7, 0.2, 0.1), (0.5, 0.5), (1.0,)]))
def test_every_group_is_in_one_set_and_a_seed_decides(table, seed: int, shares: tuple[float, ...]):
    groups, objects = table
    chosen = assign(groups, objects, shares, seed)
    assert len(chosen) == len(groups)
    assert set(chosen) <= set(range(len(shares)))
    assert chosen == assign(groups, objects, shares, seed)


@given(
    labels=st.lists(st.integers(0, 3), min_size=3, max_size=120),
    cuts=st.sets(st.integers(1, 119)),
    seed=st.integers(0, 9),
    shares=st.sampled_from([(0.7, 0.2, 0.1), (0.6, 0.2, 0.2), (0.5, 0.5)]),
)
def test_shares_of_every_class(labels: list[int], cuts: set[int], seed: int, shares: tuple[float, ...]):
    """Images with one object each: of no class has a set more than its share and the largest group of that class."""
    labels = sorted(labels)  # so that a group is of one class, but where two classes meet
    bounds = {0, len(labels), *(cut for cut in cuts if cut < len(labels))}
    bounds |= {i for i in range(1, len(labels)) if labels[i] != labels[i - 1]}
    groups = [list(range(a, b)) for a, b in pairwise(sorted(bounds))]
    objects = np.eye(4, dtype=np.int64)[labels]
    chosen = assign(groups, objects, shares, seed)
    for label in set(labels):
        mine = [(len(group), part) for group, part in zip(groups, chosen, strict=True) if labels[group[0]] == label]
        largest, total = max(size for size, _ in mine), sum(size for size, _ in mine)
        for part, share in enumerate(shares):
            got = sum(size for size, of in mine if of == part)
            assert got < share * total + largest + 1e-6
            assert got > share * total - largest * (len(shares) - 1) - 1e-6


def test_the_rarest_class_comes_first():
    """Ten images of a frequent class, of which two have the only objects of another: one for each side."""
    objects = np.array([[3, 1], [3, 1], *[[3, 0]] * 8])
    for seed in range(20):
        chosen = assign([[i] for i in range(10)], objects, (0.5, 0.5), seed)
        assert sorted(chosen[:2]) == [0, 1]
        assert sorted(chosen) == [0] * 5 + [1] * 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty scenes of two classes in the set "all", of which five are twins of others and two without objects."""
    ids = [f"{i:02d}" for i in range(40)]
    objects = {i: [object_xml("cat" if int(i) % 4 else "dog", 1, 1, 30, 20)] for i in ids[2:]}
    root = write_voc(tmp_path / "set", {"all": ids}, objects)
    for i in ids:
        write_annotation(root, i, objects.get(i, ()), (120, 90))
        write_image(root, f"{i}.png", image=scene(min(int(i), 34)))
    return root


def test_split(folder: Path):
    done = split_dataset(folder, val=0.2, test=0.1, progress=False)
    sets = {name: open_dataset(folder, name, progress=False).ids for name in ("train", "val", "test", "trainval")}
    assert {name: sets[name] for name in ("train", "val", "test")} == done.sets
    assert sorted(sets["train"] + sets["val"] + sets["test"]) == [f"{i:02d}" for i in range(40)]
    assert sets["trainval"] == sorted(sets["train"] + sets["val"])
    assert done.groups == [[f"{i:02d}" for i in range(34, 40)]]
    assert len({name for name, ids in done.sets.items() for i in ids if i >= "34"}) == 1
    assert [len(done.sets[name]) for name in ("train", "val", "test")] == [28, 8, 4]
    assert [done.counts[name]["dog"][0] for name in ("train", "val", "test")] == [6, 2, 1]
    lines = done.text().splitlines()
    assert lines[3].split() == ["images", "40", "28,", "70%", "8,", "20%", "4,", "10%"]
    assert "groups that stay together, of near-duplicates or by name: 6 images in groups of 6 to 6" in lines
    assert "  34, 35, 36, 37, 38, 39" in lines
    assert any("one group has 6 of 40 images" in line for line in lines)
    report = check_dataset(folder, progress=False)
    assert report.ok
    assert not [warning for warning in report.warnings if "share" in warning]


def test_seeds_and_sets_that_are_there(folder: Path):
    first = split_dataset(folder, seed=3, progress=False)
    with pytest.raises(FileExistsError, match="has the sets train, val, test, trainval already; --force replaces them"):
        split_dataset(folder, seed=3, progress=False)
    assert split_dataset(folder, seed=3, overwrite=True, progress=False).sets == first.sets
    assert split_dataset(folder, seed=4, overwrite=True, progress=False).sets != first.sets
    done = split_dataset(folder, test=0, overwrite=True, progress=False)
    assert list(done.sets) == ["train", "val"]
    names = sorted(path.stem for path in (folder / "ImageSets" / "Main").iterdir())
    assert names == ["all", "train", "trainval", "val"]  # a test set of before would share images with the new ones


def test_images_that_belong_together_by_name(folder: Path):
    """Tens here: what the pattern finds, joined with the near-duplicates of 34."""
    done = split_dataset(folder, val=0.25, test=0.25, by="^(.)[^5]", progress=False)
    tens = [[f"{ten}{one}" for one in "012346789"] for ten in range(3)]
    assert done.groups == [*tens, [f"{i:02d}" for i in range(30, 40)]]  # 35 is a twin of 34
    for group in done.groups:
        assert len({name for name, ids in done.sets.items() if set(ids) & set(group)}) == 1
    with pytest.raises(ValueError, match="is no regular expression: missing"):
        split_dataset(folder, by="(", overwrite=True, progress=False)
    with pytest.raises(ValueError, match="'clip' finds nothing in any name, such as '00'"):
        split_dataset(folder, by="clip", overwrite=True, progress=False)


def test_one_set_of_several(folder: Path):
    main = folder / "ImageSets" / "Main"
    ids = (main / "all.txt").read_text().split()
    (main / "all.txt").unlink()
    (main / "trainval.txt").write_text("\n".join(ids[:30]))
    (main / "test.txt").write_text("\n".join(ids[30:]))
    with pytest.raises(ValueError, match=r"say with --image-set which set of .* is meant; it has test, trainval"):
        split_dataset(folder, progress=False)
    with pytest.raises(ValueError, match="'trainval' would be replaced by a part of itself"):
        split_dataset(folder, image_set="trainval", overwrite=True, progress=False)
    with pytest.raises(FileNotFoundError, match="no image set 'none'"):
        split_dataset(folder, image_set="none", progress=False)
    with pytest.raises(FileExistsError, match="has the sets test already"):
        split_dataset(folder, image_set="trainval", test=0, progress=False)
    (main / "test.txt").rename(main / "held_out.txt")
    done = split_dataset(folder, image_set="trainval", test=0, progress=False)
    assert sorted(done.sets["train"] + done.sets["val"]) == ids[:30]
    assert (main / "trainval.txt").read_text().split() == ids[:30]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val": 0.6, "test": 0.4}, "leave something for training"),
        ({"val": -0.1}, "val -0.1 and test 0.1 must be at least 0"),
        ({"val": math.nan}, "must be at least 0"),
        ({"threshold": 65}, "threshold must be from -1 to 64, got 65"),
        ({"threshold": 64, "val": 0.01}, "nothing is left for val|too few"),
    ],
)
def test_what_cannot_be(options: dict[str, float], message: str, folder: Path):
    with pytest.raises(ValueError, match=message):
        split_dataset(folder, progress=False, **options)  # type: ignore[arg-type]
    assert [path.stem for path in (folder / "ImageSets" / "Main").iterdir()] == ["all"]


def test_coco(tmp_path: Path):
    """All that the file says besides is kept, and crowds and categories, too."""
    images = [image(i, f"p{i}.png") for i in range(1, 21)]
    labels = [annotation(i, i, 3 if i % 2 else 7, [1, 1, 9, 9], crowd=int(i == 4)) for i in range(1, 20)]
    file = write_coco(tmp_path, "all", images, labels, folder="images")
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "info": {"year": 2026}}))
    done = split_dataset(tmp_path, val=0.25, test=0.25, progress=False)
    assert [len(ids) for ids in done.sets.values()] == [10, 5, 5]
    parts = [json.loads((tmp_path / "annotations" / f"instances_{name}.json").read_bytes()) for name in done.sets]
    assert all(part["info"] == {"year": 2026} for part in parts)
    assert sorted((a for part in parts for a in part["annotations"]), key=lambda a: a["id"]) == labels
    assert [
        sorted({a["image_id"] for a in part["annotations"]} - {i["id"] for i in part["images"]}) for part in parts
    ] == [[]] * 3
    assert open_dataset(tmp_path, "trainval").classes == ("cat", "dog")
    report = check_dataset(tmp_path, progress=False)
    assert sum(c.objects for c in report.classes) == 19  # each image once, though three files have it
    assert not report.warnings


def test_coco_with_a_folder_for_each_set(tmp_path: Path):
    write_coco(tmp_path, "train2017", [image(1)], [annotation(1, 1, 3, [0, 0, 20, 15])])
    with pytest.raises(ValueError, match=r"`ssd data convert .* --link --out FOLDER` makes a folder"):
        split_dataset(tmp_path, progress=False)


def test_all_sets_are_replaced_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A new train beside an old test would let training see what is tested."""
    objects = {str(i): [object_xml("cat", 1, 1, 30, 20)] for i in range(12)}
    root = write_voc(tmp_path / "set", {"all": list(objects)}, objects)
    split_dataset(root, threshold=-1, progress=False)
    folder = root / "ImageSets" / "Main"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write = Path.write_text

    def full(self: Path, *args: Any, **options: Any) -> int:
        if self.name.startswith(".test.part."):
            raise OSError(errno.ENOSPC, "no space left")
        return write(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space to write"):
        split_dataset(root, threshold=-1, seed=1, overwrite=True, progress=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

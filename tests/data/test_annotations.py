from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.voc_folder import object_xml, write_annotation

from ssdlib.data.annotations import Finding, clean_box, clean_edges, plainly_inside, read_annotation, summarize


def kinds(notes):
    return [(note.kind, note.action) for note in notes]


def texts(*corners):
    return tuple(str(c) for c in corners)


# ---- box rules -------------------------------------------------------------------------------------------------


def test_one_based_corners_become_edges():
    assert clean_box(texts(1, 1, 40, 30), (40, 30)) == ((0, 0, 40, 30), [])
    assert clean_box(texts(3, 4, 5, 9), (40, 30)) == ((2, 3, 5, 9), [])
    assert clean_box(texts(3, 4, 5, 9), (40, 30), one_based=False) == ((3, 4, 5, 9), [])
    assert clean_box(texts("45.70", 4, 5.5e1, 9), (60, 30))[0] == (pytest.approx(44.7), 3, 55, 9)


@pytest.mark.parametrize(
    ("corners", "box", "found"),
    [
        ((9, 4, 3, 8), (2, 3, 9, 8), [("swapped corners", "repaired")]),
        ((3, 8, 9, 4), (2, 3, 9, 8), [("swapped corners", "repaired")]),
        ((0, 0, 10, 10), (0, 0, 10, 10), [("partly outside", "repaired")]),
        ((31, 21, 99, 99), (30, 20, 40, 30), [("partly outside", "repaired")]),
        ((50, 20, -5, 10), (0, 9, 40, 20), [("swapped corners", "repaired"), ("partly outside", "repaired")]),
        ((504, 337, 504, 337), None, [("zero area", "refused")]),
        ((5, 7, 5, 9), None, [("zero area", "refused")]),
        ((5, 7, 5.0000000001, 9), None, [("zero area", "refused")]),
        ((5, 7, 9, 7), None, [("zero area", "refused")]),
        ((41, 5, 60, 9), None, [("outside the image", "refused")]),
        ((-9, 5, 0, 9), None, [("outside the image", "refused")]),
        (("nan", 5, 9, 9), None, [("not a number", "refused")]),
        ((1, "inf", 9, 9), None, [("not a number", "refused")]),
        ((1, 5, "1e300", 9), None, [("not a number", "refused")]),
        ((1, "-inf", 9, "inf"), None, [("not a number", "refused")]),
        (("", 5, 9, 9), None, [("not a number", "refused")]),
        (("four", 5, 9, 9), None, [("not a number", "refused")]),
    ],
)
def test_rules(corners, box, found):
    got, notes = clean_box(texts(*corners), (40, 30))
    assert got == box
    assert kinds(notes) == found
    for corner in corners:
        assert str(corner) in notes[-1].detail


def test_no_box_is_refused():
    got, notes = clean_box(None, (40, 30))
    assert got is None
    assert kinds(notes) == [("no box", "refused")]


def slow_cover(corners, size):
    """Pixels (counted from 1) of the image that lie between the corners, both included, by looking at each."""
    x_min, y_min, x_max, y_max = corners
    x_low, x_high, y_low, y_high = min(x_min, x_max), max(x_min, x_max), min(y_min, y_max), max(y_min, y_max)
    return [
        (x, y)
        for x in range(1, size[0] + 1)
        for y in range(1, size[1] + 1)
        if x_low <= x <= x_high and y_low <= y <= y_high
    ]


whole = st.integers(-3, 12)


@given(st.tuples(whole, whole, whole, whole), st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_box_spans_the_pixels_between_its_corners(corners, size):
    box, notes = clean_box(texts(*corners), size)
    cover = slow_cover(corners, size)
    if corners[0] == corners[2] or corners[1] == corners[3]:
        assert box is None
        assert "zero area" in [note.kind for note in notes]
    elif not cover:
        assert box is None
        assert "outside the image" in [note.kind for note in notes]
    else:
        xs, ys = [x for x, _ in cover], [y for _, y in cover]
        assert box == (min(xs) - 1, min(ys) - 1, max(xs), max(ys))
        assert (box[2] - box[0]) * (box[3] - box[1]) == len(cover)
    legal = corners[0] < corners[2] and corners[1] < corners[3] and min(corners) >= 1
    legal = legal and corners[2] <= size[0] and corners[3] <= size[1]
    assert (not notes) == legal


number = st.floats(-1e4, 1e4) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0])


edge = st.one_of(
    st.floats(-0.5, 8.5),
    st.sampled_from([-1e-9, 0.0, 0.019, 0.021, 3.0, 3.02, 7.999999999, 8.0, 8.000000001, 9.0, math.nan]),
)


@given(st.tuples(edge, edge, edge, edge), st.tuples(st.integers(1, 8), st.integers(1, 8)))
@example((0.0, 0.0, 8.5, 8.0), (8, 8))
@example((1.0, 2.0, 7.0, 8.0), (8, 8))
@example((3.0, 0.0, 3.0, 8.0), (8, 8))
@example((3.0, 0.0, 3.00000001, 8.0), (8, 8))
def test_the_short_way_gives_what_the_rules_give_or_nothing(corners, size):
    box = plainly_inside(*corners, size)
    if box is not None:
        assert (box, []) == clean_box(texts(*corners), size, one_based=False)


def test_most_boxes_go_the_short_way():
    assert plainly_inside(1.0, 2.0, 7.0, 8.0, (8, 8)) == (1.0, 2.0, 7.0, 8.0)
    assert plainly_inside(0.0, 0.0, 8.0, 8.0, (8, 8)) == (0.0, 0.0, 8.0, 8.0)


@given(st.tuples(number, number, number, number), st.booleans())
def test_result_lies_inside_and_is_stable(corners, one_based):
    box, notes = clean_box(tuple(map(repr, corners)), (64, 48), one_based)
    assert (box is None) == any(note.action == "refused" for note in notes)
    if box is not None:
        assert all(float(np.float32(edge)) == edge for edge in box)
        assert 0 <= box[0] < box[2] <= 64
        assert 0 <= box[1] < box[3] <= 48
        assert clean_box(tuple(map(repr, box)), (64, 48), one_based=False) == (box, [])


# ---- files -----------------------------------------------------------------------------------------------------


def test_reads_what_is_written(tmp_path: Path):
    objects = [object_xml(" cat ", 1, 2, 3, 4), object_xml("dog", 5, 6, 7, 8, difficult=1)]
    path = write_annotation(tmp_path, "a", objects, size=(40, 30), filename="b.jpg")
    annotation = read_annotation(path)
    assert annotation.filename == "b.jpg"
    assert annotation.size == (40, 30)
    assert annotation.objects == (("cat", ("1", "2", "3", "4"), False), ("dog", ("5", "6", "7", "8"), True))


@pytest.mark.parametrize("size", [None, (0, 0), (0, 30)])
def test_missing_or_zero_size_is_none(tmp_path: Path, size):
    assert read_annotation(write_annotation(tmp_path, "a", size=size)).size is None


def test_parts_of_an_object_are_no_objects(tmp_path: Path):
    """People in VOC have parts (head, hand) with a name and a box of their own, inside the object."""
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    xml = object_xml("person", 1, 2, 3, 4)
    path = write_annotation(tmp_path, "a", [xml.replace("<object>", f"<object>{part}")])
    assert read_annotation(path).objects == (("person", ("1", "2", "3", "4"), False),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation><object>", "not readable as XML"),
        ("", "not readable as XML"),
        ("<?xml version='1.0' encoding='no-such'?><annotation/>", "not readable as XML"),
        ("<!DOCTYPE a [<!ENTITY e 'x'>]><annotation>&e;</annotation>", "not readable as XML.*'e'"),
        ("<!DOCTYPE a [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><annotation>&e;</annotation>", "not readable as XML"),
        ("<html/>", "root element is <html>"),
        ("<annotation><object><bndbox/></object></annotation>", "no <name>"),
        ("<annotation><object><name> </name></object></annotation>", "no <name>"),
        ("<annotation><size><width>wide</width></size></annotation>", "<size/width> is not a number: 'wide'"),
        ("<annotation><object><name>c</name><difficult>no</difficult></object></annotation>", "<difficult>.*'no'"),
        ("<annotation><size><width>inf</width></size></annotation>", "'inf'"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "bad one.xml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad one\.xml: .*{message}"):
        read_annotation(path)


def test_binary_rubbish_and_missing_file(tmp_path: Path):
    path = tmp_path / "bad.xml"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"bad\.xml"):
        read_annotation(path)
    with pytest.raises(FileNotFoundError, match=r"none\.xml"):
        read_annotation(tmp_path / "none.xml")


def test_findings_in_words():
    first = Finding("Annotations/a.xml", 3, "zero area", "refused", "xmin 5, xmax 5")
    second = Finding("Annotations/b.xml", None, "wrong size", "repaired", "40 x 30")
    assert str(first) == "Annotations/a.xml, object 3: zero area, refused: xmin 5, xmax 5"
    assert str(second) == "Annotations/b.xml: wrong size, repaired: 40 x 30"
    assert summarize([first, second, first]) == "refused 2 (zero area 2); repaired 1 (wrong size 1)"
    assert summarize([]) == ""


near = st.integers(-3, 45) | st.floats(-3, 45) | st.sampled_from([0, 0.01, 30, 39.999, 40, 40.01, 10**400, 1e300])


@given(edges=st.tuples(near, near, near, near), size=st.sampled_from([(40, 30), (1, 1), (2**16, 2**16)]))
@example(edges=(10**400, 1, 5.0, 9), size=(40, 30))
def test_numbers_go_by_the_rules_of_texts(edges: tuple[float, ...], size: tuple[int, int]):
    texts = tuple(str(float(str(edge))) for edge in edges)
    assert clean_edges(edges, size) == clean_box(texts, size, one_based=False)  # type: ignore[arg-type]

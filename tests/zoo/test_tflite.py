"""The reader of TensorFlow Lite files: a file made by hand, and files that are damaged in every way."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.zoo.tflite import float16_constants


class Writer:
    """A FlatBuffer, written from its beginning to its end: what is pointed to comes after what points."""

    def __init__(self) -> None:
        self.data = bytearray(8)
        self.data[4:8] = b"TFL3"

    def point(self, place: int) -> None:
        """Let the offset at `place` point to what is written next."""
        struct.pack_into("<I", self.data, place, len(self.data) - place)

    def vector(self, place: int, content: bytes, size: int) -> int:
        self.point(place)
        self.data += struct.pack("<I", len(content) // size) + content
        return len(self.data) - len(content)

    def table(self, place: int, fields: dict[int, str]) -> dict[int, int]:
        """A table of fields (number: b or I), zeros at first; returns their places."""
        last = max(fields, default=-1)
        sizes = {"b": 1, "I": 4}
        names, offset = bytearray(), 4
        places: dict[int, int] = {}
        for number in range(last + 1):
            names += struct.pack("<H", offset if number in fields else 0)
            if number in fields:
                places[number] = offset
                offset += sizes[fields[number]]
        self.data += struct.pack("<HH", 4 + len(names), offset) + names
        self.point(place)
        begin = len(self.data)
        self.data += struct.pack("<i", 4 + len(names)) + bytes(offset - 4)
        return {number: begin + where for number, where in places.items()}


def a_file(tensors: list[tuple[str, int, list[int], bytes]]) -> bytes:
    writer = Writer()
    model = writer.table(0, {2: "I", 4: "I"})
    graphs = writer.vector(model[2], bytes(4), 4)
    graph = writer.table(graphs, {0: "I"})
    entries = writer.vector(graph[0], bytes(4 * len(tensors)), 4)
    for i, (name, kind, shape, _) in enumerate(tensors):
        fields = writer.table(entries + 4 * i, {0: "I", 1: "b", 2: "I", 3: "I"})
        struct.pack_into("<b", writer.data, fields[1], kind)
        struct.pack_into("<I", writer.data, fields[2], i + 1)  # buffer 0 is empty, as in the format
        writer.vector(fields[0], struct.pack(f"<{len(shape)}i", *shape), 4)
        writer.vector(fields[3], name.encode(), 1)
    buffers = writer.vector(model[4], bytes(4 * (len(tensors) + 1)), 4)
    writer.table(buffers, {})
    for i, (_, _, _, content) in enumerate(tensors, start=1):
        buffer = writer.table(buffers + 4 * i, {0: "I"})
        writer.vector(buffer[0], content, 1)
    return bytes(writer.data)


def half(*values: float) -> bytes:
    return torch.tensor(values, dtype=torch.float16).numpy().tobytes()


FILE = a_file(
    [
        ("weights", 1, [2, 1, 2], half(1, -2, 0.5, 4)),
        ("a number of another type", 0, [1], bytes(4)),
        ("computed", 1, [3], b""),
        ("été", 1, [1], half(7)),
    ]
)


def test_a_file_by_hand() -> None:
    found = float16_constants(FILE)
    assert list(found) == ["weights", "été"]
    assert found["weights"].tolist() == [[[1, -2]], [[0.5, 4]]]
    assert found["été"].dtype == torch.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no TensorFlow Lite file"),
        (b"PK\3\4" * 100, "no TensorFlow Lite file"),
        (FILE[:8], "points to byte"),
        (FILE[:60], "damaged"),
        (a_file([("w", 1, [3], half(1, 2))]), r"'w' of shape \[3\] has 4 bytes"),
        (a_file([("w", 1, [-1, -2], half(1, 2))]), "'w' of shape"),
        (a_file([("w", 1, [1] * 9, half(1))]), "'w' of shape"),
    ],
)
def test_what_is_no_file_or_damaged(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        float16_constants(content)


@given(place=st.integers(0, len(FILE) - 1), value=st.integers(0, 255), end=st.integers(0, len(FILE)))
def test_any_damage_is_a_value_error_or_other_numbers(place: int, value: int, end: int) -> None:
    for damaged in (FILE[:place] + bytes([value]) + FILE[place + 1 :], FILE[:end]):
        try:
            found = float16_constants(damaged)
        except ValueError:
            continue
        assert sum(tensor.numel() for tensor in found.values()) <= len(FILE)

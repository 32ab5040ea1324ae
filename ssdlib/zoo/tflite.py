"""The constants of a TensorFlow Lite file: its weights, by name. Nothing of the program in it is run.

The file is a FlatBuffer: tables whose fields are found through offsets. Only the few fields that lead to the weights
are read, and no offset is followed out of the file.

Source: the FlatBuffers internals page, and TensorFlow's schema.fbs for the numbers of the fields.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch
from torch import Tensor

_SUBGRAPHS, _BUFFERS = 2, 4  # fields of the model
_TENSORS = 0  # of a subgraph
_SHAPE, _TYPE, _BUFFER, _NAME = range(4)  # of a tensor
_DATA = 0  # of a buffer
_FLOAT16 = 1
_MOST = 10_000  # tensors of a file, bytes of a name: far beyond those of any detector


def float16_constants(data: bytes) -> dict[str, Tensor]:
    """All float16 tensors that a file holds, as float32, by their names.

    Args:
        data: the whole file.

    Raises:
        ValueError: if it is no TensorFlow Lite file, or a damaged one.
    """
    if data[4:8] != b"TFL3":
        raise ValueError("this is no TensorFlow Lite file: bytes 4 to 7 are not TFL3")
    model = _Table(data, _number(data, 0, "I"))
    buffers = model.tables(_BUFFERS)
    found: dict[str, Tensor] = {}
    for graph in model.tables(_SUBGRAPHS):
        for tensor in graph.tables(_TENSORS):
            if tensor.scalar(_TYPE, "b") != _FLOAT16:
                continue
            number = tensor.scalar(_BUFFER, "I")
            if number >= len(buffers):
                raise ValueError(f"a damaged TensorFlow Lite file: buffer {number} of {len(buffers)}")
            content = buffers[number].vector(_DATA, 1)
            if content:
                name = tensor.vector(_NAME, 1)[:_MOST].decode("utf-8", "replace")
                shape = [size for (size,) in struct.iter_unpack("<i", tensor.vector(_SHAPE, 4))]
                found[name] = _tensor(content, shape, name)
    return found


def _tensor(content: bytes, shape: list[int], name: str) -> Tensor:
    count = 1
    for size in shape:
        count *= size
    if len(shape) > 8 or min(shape, default=1) < 0 or 2 * count != len(content):
        raise ValueError(f"a damaged TensorFlow Lite file: {name!r} of shape {shape[:8]} has {len(content)} bytes")
    return torch.frombuffer(bytearray(content), dtype=torch.float16).float().reshape(shape)


class _Table(NamedTuple):
    """A table of the file, by the place where it begins."""

    data: bytes
    place: int

    def field(self, number: int) -> int | None:
        """Where a field lies; None if the table leaves it out."""
        names = self.place - _number(self.data, self.place, "i")  # the table of the fields' places
        if 4 + 2 * number >= _number(self.data, names, "H"):
            return None
        offset = _number(self.data, names + 4 + 2 * number, "H")
        return self.place + offset if offset else None

    def scalar(self, number: int, kind: str) -> int:
        """A number; 0 if it is left out."""
        place = self.field(number)
        return 0 if place is None else _number(self.data, place, kind)

    def vector(self, number: int, size: int) -> bytes:
        """The bytes of a vector whose elements have `size` bytes; none if it is left out."""
        place = self.field(number)
        if place is None:
            return b""
        place += _number(self.data, place, "I")
        begin, length = place + 4, size * _number(self.data, place, "I")
        if begin + length > len(self.data):
            raise ValueError(f"a damaged TensorFlow Lite file: {length} bytes at {begin} of {len(self.data)}")
        return self.data[begin : begin + length]

    def tables(self, number: int) -> list[_Table]:
        """The tables of a vector of tables."""
        entries = self.vector(number, 4)
        if len(entries) > 4 * _MOST:
            raise ValueError(f"a damaged TensorFlow Lite file: a list of {len(entries) // 4} tables")
        field = self.field(number)
        if field is None:
            return []
        begin = field + _number(self.data, field, "I") + 4
        return [_Table(self.data, begin + 4 * i + step) for i, (step,) in enumerate(struct.iter_unpack("<I", entries))]


def _number(data: bytes, place: int, kind: str) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(kind):
        raise ValueError(f"a damaged TensorFlow Lite file: it points to byte {place} of {len(data)}")
    return int(struct.unpack_from(f"<{kind}", data, place)[0])

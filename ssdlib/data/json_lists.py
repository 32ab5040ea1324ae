"""The lists of a large JSON file, entry by entry: neither its text nor what it holds is in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

from ssdlib.data.names import shown

_PIECE = 2**20  # bytes of a file that are read at a time
_OUTLINE = re.compile(rb'("segmentation"\s*:\s*)\[[][0-9eE+.,\s-]*\]')
_SPACE, _NEXT = re.compile(r"[ \t\n\r]*"), re.compile(r"[ \t\n\r]*([,\]])")
_decode = json.JSONDecoder().raw_decode


def read_lists(file: Path, readers: Mapping[str, Callable[[int, Any], None]]) -> set[str]:
    """Give the entries of some lists of a JSON object to readers, in the order of the file.

    Args:
        file: its text is one object in braces; what else is in it is parsed, and thrown away.
        readers: by the name of a list: is called with the place of an entry, from 0, and the entry.

    Returns:
        The names of the lists that are there. The file may hold anything else that is JSON: then there are none.

    Raises:
        ValueError: it is not readable as JSON, or a list is there twice; the message names the file.
    """
    text = _Text(pieces_of(file))
    found: set[str] = set()
    try:
        if text.skip_space() != "{":
            text.value()
        elif not text.passes("}", after=1):
            while True:
                name = text.value()
                if not isinstance(name, str) or not text.passes(":"):
                    raise ValueError(f"{shown(name)} is no name with a colon")
                if text.skip_space() != "[":
                    text.value()
                elif name in found:
                    raise ValueError(f"the list {name!r} stands twice")
                elif name in readers:
                    found.add(name)
                    text.entries(readers[name])
                else:
                    text.entries(lambda number, entry: None)
                if not text.passes(","):
                    break
            if not text.passes("}"):
                raise ValueError(f"there is no comma or brace after {shown(name)}")
        if text.skip_space():
            raise ValueError(f"more follows after its end: {shown(text.ahead())}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON: {_said(error, text)}") from error
    return found


def pieces_of(file: Path) -> Iterator[str]:
    """The text of a JSON file in pieces, with 0 in the place of each outline: they are nine tenths of COCO's files.

    The parser would make numbers of them, only to have them thrown away. No piece ends within a number.
    """
    rest, size = b"", _PIECE
    with file.open("rb") as content:
        decoder = codecs.getincrementaldecoder(json.detect_encoding(content.read(4)))("surrogatepass")
        content.seek(0)
        while piece := content.read(size):
            rest += piece
            cut = rest.rfind(b"}") + 1  # no outline goes on behind a brace
            size = _PIECE if cut else 2 * size  # or a file without braces would be looked through again and again
            yield decoder.decode(_OUTLINE.sub(rb"\g<1>0", rest[:cut]))
            rest = rest[cut:]
    yield decoder.decode(rest, final=True)


class _Text:
    """A text in pieces, of which only what is not yet read is in memory."""

    def __init__(self, pieces: Iterator[str]) -> None:
        self.pieces, self.text, self.at = pieces, "", 0

    def more(self, pieces: int = 1) -> bool:
        """Read other pieces; False at the end."""
        new = [*islice(self.pieces, pieces)]
        self.text, self.at = "".join((self.text[self.at :], *new)), 0
        return bool(new)

    def ahead(self) -> str:
        """The beginning of what is not yet read."""
        return self.text[self.at : self.at + 40]

    def skip_space(self) -> str:
        """Go on to the next character that is no space, which is returned; "" at the end."""
        while True:
            self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it always fits
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def passes(self, mark: str, after: int = 0) -> bool:
        """Whether the next character is `mark`, which is passed then; so many before it are passed in any case."""
        self.at += after
        there = self.skip_space() == mark
        self.at += there
        return there

    def value(self) -> Any:
        """The value that begins here."""
        self.skip_space()
        pieces = 1
        while True:
            try:
                value, self.at = _decode(self.text, self.at)
            except json.JSONDecodeError:  # perhaps it goes on in the next pieces
                if not self.more(pieces):
                    raise
                pieces *= 2  # it is parsed anew each time
            else:
                return value

    def entries(self, read: Callable[[int, Any], None]) -> None:
        """Give each entry of the list that begins here to a function."""
        if self.passes("]", after=1):
            return
        for number in count():
            read(number, self.value())
            following = _NEXT.match(self.text, self.at)
            while following is None and self.more():
                following = _NEXT.match(self.text, self.at)
            if following is None:
                self.skip_space()
                raise ValueError(f"there is no comma or bracket after entry {number}, but {shown(self.ahead())}")
            self.at = following.end()
            if following[1] == "]":
                return


def _said(error: Exception, text: _Text) -> str:
    """What is wrong; a parser's error counts from the beginning of what is in memory, which says nothing."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}: {shown(error.doc[error.pos : error.pos + 40])}"
    return str(error)

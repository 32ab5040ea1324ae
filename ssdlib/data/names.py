"""Names in files, of classes, images and sets: what a terminal would obey, or no page can hold, is refused."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's controls, halves of surrogate pairs, ends of lines and of paragraphs
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they change the order of what follows
_MOST_SHOWN = 200
_MOST_SAID = 1000
_LONGEST = 255  # no system has longer names of files
_PLAIN = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.+-]*/)*[A-Za-z0-9_][A-Za-z0-9_.+-]*")


def check_name(name: Any, what: str) -> str:
    """Return a name that can be shown: a text with something in it, and without control characters.

    Args:
        name: the name.
        what: what it names, for the message, such as "the class".

    Raises:
        ValueError: the name is no text, is empty or blank, is longer than 255 characters, or has a control character
            (which can recolour a terminal or fake a line), a character that turns the direction of writing, or half a
            surrogate pair.
    """
    if not isinstance(name, str):
        raise ValueError(f"{what} must be a text, got {shown(name)}")
    if not name.strip():
        raise ValueError(f"{what} {name!r} is empty")
    if len(name) > _LONGEST:
        raise ValueError(f"{what} {shown(name)} has {len(name)} characters, more than {_LONGEST}")
    if not _is_clean(name):
        raise ValueError(f"{what} {shown(name)} has a control character, or one that cannot be shown")
    return name


def check_file_name(name: Any, what: str) -> str:
    """Return a file name, perhaps with folders, that can be shown and stays in its folder on any system.

    Raises:
        ValueError: as :func:`check_name`; or the name is absolute, begins with a drive, or has a part ".." or one of
            more than 255 bytes.
    """
    if isinstance(name, str) and len(name) <= _LONGEST and _PLAIN.fullmatch(name):
        return name  # nearly all are, and a large set has a hundred thousand of them
    check_name(name, what)
    drive_or_root = PureWindowsPath(name).anchor or PureWindowsPath(name).drive or PurePosixPath(name).anchor
    parts = re.split(r"[/\\]", name)
    if max(len(part.encode()) for part in parts) > _LONGEST:
        raise ValueError(f"{what} {shown(name)} has a part of more than {_LONGEST} bytes")
    if drive_or_root or ".." in parts:
        raise ValueError(f"{what} {shown(name)} leads out of the data set")
    return name


def printable(text: object) -> str:
    r"""A text for one line of a terminal: what `check_name` refuses is shown as an escape, such as \x1b."""
    text = str(text)
    return text if _is_clean(text) else "".join(c if _is_clean(c) else repr(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """The value as Python writes it, for a message: without control characters, and cut where it is long."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} of great depth"
    return printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things in words: 1 image, 2,500 images. The plural is the noun with an s, if not given."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def said(message: object) -> str:
    """What a library says of a file, for our message: it may quote all of the file, and is cut where it is long."""
    text = str(message)
    return printable(text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}...")


def distinct(name: str, taken: set[str]) -> str:
    """The name of a file, with a number where `taken` has it already; it is added there.

    Capitals do not count, and `taken` is in small letters: a disk may not tell A from a.
    """
    number, first = 1, name
    while name.lower() in taken:
        number += 1
        name = f"{first}_{number}"
    taken.add(name.lower())
    return name


def _is_clean(text: str) -> bool:
    return text.isprintable() or not any(unicodedata.category(c) in _UNSEEN or c in _TURNING for c in text)

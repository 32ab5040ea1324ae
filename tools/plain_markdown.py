"""MyST as plain Markdown, which every notebook editor renders: roles become words and links, directives quotes.

What it does not know it refuses, so that no markup slips through to a reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import meanings
from pybtex.database import BibliographyData, Entry

FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|:{3,}|~{3,})(?:\{(?P<name>[\w-]+)\}(?P<title>.*)|(?P<code>.*))$")
ROLE = re.compile(r"\{(?P<name>[\w:-]+)\}`(?P<text>[^`]+)`|(?P<code>(?P<ticks>`+)[^`].*?(?P=ticks)(?!`))", re.DOTALL)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<file>[\w./-]+\.(?:ipynb|md))(?P<place>#[\w-]+)?\)")
NAMED_EQUATION = re.compile(r"^(?P<start>.*?)\$\$[ \t]*\((?P<name>[\w-]+)\)[ \t]*$", re.MULTILINE)
OPTION = re.compile(r"^\s*:(?P<key>[\w-]+):(?P<value>.*)$")
EXPLICIT = re.compile(r"(?P<text>.*?)\s*<(?P<target>[^<>]+)>", re.DOTALL)
LEFT_OVER = re.compile(r"\{[\w:-]+\}`|^\s*(?:`{3,}|:{3,})\{|^:::|^\([\w-]+\)=\s*$|\{\{|\$\$ *\([\w-]+\)", re.MULTILINE)
CODE = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2[`~]*\s*$|(`+)[^`].*?\3(?!`)", re.MULTILINE | re.DOTALL)
QUOTES = ("note", "tip", "warning", "important", "hint", "caution", "seealso", "admonition", "dropdown", "attention")


class MarkupError(Exception):
    """Markup that has no plain form here."""


@dataclass
class Words:
    """What the texts of a book refer to.

    Attributes:
        titles: of the pages, by the names of their files.
        meanings: of the terms of the glossary, in lower case.
        sources: the bibliography.
        figures: of all chapters: label -> (file, number in that chapter).
        equations: likewise.
        glued: numbers of the chapter that is converted.
        link: makes the address of a file of the book; None where a reader cannot reach it.
    """

    titles: Mapping[str, str]
    meanings: Mapping[str, str]
    sources: BibliographyData
    figures: Mapping[str, tuple[str, int]]
    equations: Mapping[str, tuple[str, int]]
    link: Callable[[str], str | None]
    glued: Mapping[str, str] = field(default_factory=dict)
    file: str = ""


def plain(text: str, words: Words) -> str:
    """A cell of MyST as plain Markdown.

    Raises:
        MarkupError: for a directive, a role, or a name that is not known.
    """
    done = "\n".join(_blocks(text.split("\n"), words))
    if found := LEFT_OVER.search(CODE.sub("", done)):
        raise MarkupError(f"{words.file}: {found[0]!r} is left over")
    return re.sub(r"\n{3,}", "\n\n", done).strip()


def _blocks(lines: list[str], words: Words) -> Iterator[str]:
    """Paragraphs with their roles resolved, code as it is, directives converted."""
    held: list[str] = []
    at = 0
    while at < len(lines):
        found = FENCE.match(lines[at])
        if found is None:
            if not re.match(r"%( |$)|\([\w-]+\)=\s*$", lines[at]):  # comments and names of places
                held.append(lines[at])
            at += 1
            continue
        close = re.compile(rf"\s*{found['fence'][0]}{{{len(found['fence'])},}}\s*$")
        end = next((n for n in range(at + 1, len(lines)) if close.match(lines[n])), len(lines))
        yield _inline("\n".join(held), words)
        held = []
        inside = lines[at + 1 : end]
        if found["name"] is None:
            yield "\n".join(lines[at : end + 1])
        else:
            yield _directive(found["name"], found["title"].strip(), inside, words)
        at = end + 1
    yield _inline("\n".join(held), words)


def _directive(name: str, title: str, lines: list[str], words: Words) -> str:
    options: dict[str, str] = {}
    while lines and (found := OPTION.match(lines[0])):
        options[found["key"]] = found["value"].strip()
        lines = lines[1:]
    body = "\n".join(_blocks(lines, words)).strip()
    if name == "exercise":
        return f"### Exercise{f': {_inline(title, words)}' if title else ''}\n\n{body}\n"
    if name == "solution":
        return folded("Solution", body)
    if name in QUOTES:
        heading = _inline(title, words) if title else name.capitalize()
        quoted = f"**{heading}.** {body}" if not body.startswith(("-", "|", "1.", ">")) else f"**{heading}**\n\n{body}"
        return "\n".join(f"> {line}".rstrip() for line in quoted.split("\n")) + "\n"
    if name == "math":
        return f"$$\n{body}\n$$\n"
    if name in ("figure", "image"):
        number = words.figures.get(options.get("name", ""), ("", 0))[1]
        caption = f"\n\n*Figure {number}.* {body}" if body and number else f"\n\n{body}"
        return f"![{options.get('alt', '')}]({title}){caption}\n"
    if name == "clip":
        return f"*On the book's page a clip plays here.* {body}\n\n{folded('What the clip shows', options['alt'])}"
    if name in ("index", "tableofcontents"):
        return ""
    raise MarkupError(f"{words.file}: no plain form of the directive {name!r} is known")


def folded(summary: str, body: str) -> str:
    """A text behind a line to click; the blank lines make what is inside Markdown again."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>\n"


def _inline(text: str, words: Words) -> str:
    text = NAMED_EQUATION.sub(lambda m: rf"{m['start']}\tag{{{words.equations[m['name']][1]}}}$$", text)
    text = re.sub(r"^(\S.*)\n: +(.*)$", r"- **\1**: \2", text, flags=re.MULTILINE)  # lists of definitions
    text = ROLE.sub(lambda m: m[0] if m["code"] else _role(m["name"], " ".join(m["text"].split()), words), text)
    return LINK.sub(lambda m: _linked(m["text"] or words.titles[Path(m["file"]).name], m["file"], words), text)


def _role(name: str, text: str, words: Words) -> str:
    explicit = EXPLICIT.fullmatch(text)
    shown, target = (explicit["text"], explicit["target"]) if explicit else (text, text)
    if name == "glue:text":
        if text not in words.glued:
            raise MarkupError(f"{words.file}: no cell glues {text!r}")
        return words.glued[text]
    if name == "term":
        meaning = words.meanings.get(target.lower())
        if meaning is None:
            raise MarkupError(f"{words.file}: the glossary has no {target!r}")
        return f'<abbr title="{escape(meaning).replace("|", "&#124;")}">{shown}</abbr>'
    if name in ("cite:t", "cite:p", "cite"):
        cited = [citation(words.sources.entries[key.strip()], name != "cite:t") for key in text.split(",")]
        return ", ".join(cited) if name == "cite:t" else f"({'; '.join(cited)})"
    if name == "doc":
        file = next((f for f in words.titles if f.rpartition(".")[0] == target.lstrip("/")), target)
        return _linked(shown if explicit else words.titles[file], file, words)
    if name in ("numref", "eq"):
        known = words.figures if name == "numref" else words.equations
        if target not in known:
            raise MarkupError(f"{words.file}: no chapter has {target!r}")
        file, number = known[target]
        said = f"figure {number}" if name == "numref" else f"({number})"
        return said if file == words.file else f"{said} of {_linked(words.titles[file], file, words)}"
    if name in ("func", "meth", "mod", "class", "attr", "data", "py:func", "py:mod"):
        return f"`{shown.lstrip('~')}`"
    if name in ("math", "kbd"):
        return f"${text}$" if name == "math" else f"<kbd>{text}</kbd>"
    if name == "playground" and explicit:
        address = words.link("playground.md")
        return f"[{shown}]({address}#{target})" if address else f"{shown} (on the book's page *Playground*)"
    if name in ("ref", "sets") and explicit:
        return shown
    raise MarkupError(f"{words.file}: no plain form of the role {name!r} is known")


def _linked(text: str, file: str, words: Words) -> str:
    address = words.link(Path(file).name)
    return f"[{text}]({address})" if address else f"*{text}*"


def citation(entry: Entry, in_brackets: bool) -> str:
    """An entry of the bibliography as "Liu et al. (2016)", with a link where it says one."""
    names = [" ".join(person.last_names) for person in entry.persons["author"]]
    who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} et al."
    who = who.replace("{", "").replace("}", "")
    said = f"{who}, {entry.fields['year']}" if in_brackets else f"{who} ({entry.fields['year']})"
    fields = entry.fields
    address = fields.get("url") or (f"https://doi.org/{fields['doi']}" if "doi" in fields else "")
    if "eprint" in fields:
        address = f"https://arxiv.org/abs/{fields['eprint']}"
    return f"[{said}]({address})" if address else said


def glossary_of(text: str) -> dict[str, str]:
    """The terms of the glossary's source, in lower case, with their definitions as text."""
    found: dict[str, str] = {}
    body = text.partition("```{glossary}\n")[2].rpartition("```")[0]
    for entry in re.split(r"\n\s*\n", body):
        lines = entry.strip("\n").split("\n")
        terms = [line for line in lines if line and not line.startswith(" ")]
        meaning = " ".join(line.strip() for line in lines if line.startswith(" "))
        meaning = re.sub(r"\s*Chapters?: .*$|\s*\{cite:\w+\}`[^`]*`", "", meaning)
        meaning = re.sub(r"\$([^$]+)\$", lambda m: meanings.plain_maths(m[1]), meaning)
        meaning = re.sub(r"\{[\w:]+\}`([^`<]+?)(?: <[^`]*>)?`", r"\1", meaning)
        found |= dict.fromkeys((term.strip().lower() for term in terms), re.sub(r"[`*]", "", meaning))
    return found

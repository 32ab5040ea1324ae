"""Clips on pages: small files that a browser may play, a picture before they play, and what they show in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import clip
import nbformat
import pytest
import tracks_clip
from docutils import nodes
from PIL import Image

STATIC = tracks_clip.STATIC


def test_the_clip_is_small_and_is_what_its_tool_makes() -> None:
    av = pytest.importorskip("av")
    path = STATIC / "tracks.webm"
    assert path.stat().st_size < 500_000
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size, codec = (stream.width, stream.height), stream.codec_context.name
        assert sum(1 for _ in container.decode(video=0)) == tracks_clip.FRAMES
    assert "vp9" in codec
    with Image.open(STATIC / "tracks.jpg") as picture:
        assert picture.size == size


def test_a_short_clip_is_written_and_has_its_frames(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = [Image.new("RGB", (64, 48), (40 * k, 0, 0)) for k in range(5)]
    tracks_clip.write(frames, tmp_path / "short.webm")
    with av.open(str(tmp_path / "short.webm")) as container:
        reds = [frame.to_ndarray(format="rgb24")[..., 0].mean() for frame in container.decode(video=0)]
    assert len(reds) == 5
    assert all(abs(red - 40 * k) < 12 for k, red in enumerate(reds)), reds


def test_the_player_has_controls_a_picture_and_words_and_does_not_begin_by_itself() -> None:
    writer = SimpleNamespace(body=[], builder=SimpleNamespace(current_docname="book/15_tracks"))
    with pytest.raises(nodes.SkipNode):
        clip.visit(writer, clip.clip("", name="tracks", alt='Two "leaves" <cross>.', size=(320, 644)))
    (html,) = writer.body
    assert "<video controls" in html
    assert "autoplay" not in html
    assert 'src="../_static/tracks.webm"' in html
    assert 'poster="../_static/tracks.jpg"' in html
    assert html.count("Two &quot;leaves&quot; &lt;cross&gt;.") == 3
    assert "<cross>" not in html


def test_each_clip_of_the_book_is_told_in_words() -> None:
    found = 0
    for path in sorted((STATIC.parent).glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if "```{clip}" in cell.source:
                found += 1
                (alt,) = [line for line in cell.source.splitlines() if line.startswith(":alt: ")]
                assert len(alt) > 200, path.name
    assert found == 1

"""Labels in the formats of annotation tools, read with an account of all that could not be taken.

Each reader is a few lines on :class:`ssdlib.data.formats.collecting.Collector`. The package globox reads these formats,
too, but not with an account: one box with swapped corners ends it with an AssertionError that names no file, polygons,
rotations, `difficult` and `iscrowd` are dropped in silence, VOC's first pixel is not 0, and its XML may declare
entities. It writes them well, and so it is the independent other side of our tests.
"""

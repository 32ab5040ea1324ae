"""NMS at the end of a graph of ONNX, by its own operator, which the runtimes implement in C++."""

from __future__ import annotations

from typing import Any

from ssdlib.deploy.extras import require

CANDIDATES = 400
"""At most so many objects of a class are kept, as `ssdlib.detection.detect` takes at most so many to NMS."""


NOTHING = 1e-6
"""Of the image's side: a box that is narrower has no area, as in `ssdlib.detection.has_area`."""


def add_nms(graph: Any, min_score: float, max_overlap: float) -> None:
    """Put NMS behind boxes (N, P, 4) and scores (N, P, C), which become a row for each object of all images.

    Args:
        graph: `onnx.ModelProto` with the outputs "boxes" and "scores"; it is changed. Then its outputs are "image" (M,)
            and "labels" (M,), int64, "boxes" (M, 4), clipped to the image, and "scores" (M,).
        min_score, max_overlap: as for `ssdlib.detection.detect`.
    """
    onnx = require("onnx", "onnx")
    helper, kind = onnx.helper, onnx.TensorProto
    body = graph.graph
    for node in body.node:
        for i, name in enumerate(node.output):
            if name in ("boxes", "scores"):
                node.output[i] = f"all_{name}"

    def constant(name: str, values: list[Any], data_type: int, shape: list[int]) -> str:
        body.initializer.append(helper.make_tensor(f"nms_{name}", data_type, shape, values))
        return f"nms_{name}"

    def integers(name: str, *values: int) -> str:
        return constant(name, list(values), kind.INT64, [len(values)])

    def number(name: str, value: float) -> str:
        return constant(name, [value], kind.FLOAT, [])

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        body.node.append(helper.make_node(operator, inputs, [output], name=f"nms_{output}_{operator}", **attributes))

    second = integers("one", 1)
    add("Clip", ["all_boxes", number("low", 0.0), number("high", 1.0)], "clipped")
    # Without background: columns 1 to the end.
    add("Slice", ["all_scores", second, integers("end", 2**31 - 1), integers("axis", 2)], "of_objects")
    # A box without area is no object: its scores become 0.
    add("Split", ["clipped", integers("halves", 2, 2)], "corner", axis=2)
    body.node[-1].output.append("far_corner")
    add("Sub", ["far_corner", "corner"], "extent")  # (N, P, 2)
    add("ReduceMin", ["extent", integers("last", 2)], "narrow", keepdims=1)
    add("Greater", ["narrow", number("nothing", NOTHING)], "has_area")
    add("Cast", ["has_area"], "mask", to=kind.FLOAT)
    add("Mul", ["of_objects", "mask"], "of_boxes_with_area")
    add("Transpose", ["of_boxes_with_area"], "by_class", perm=[0, 2, 1])  # (N, C-1, P)
    limits = [integers("most", CANDIDATES), number("overlap", max_overlap), number("score", min_score)]
    add("NonMaxSuppression", ["clipped", "by_class", *limits], "selected")  # (M, 3): image, column, prior
    add("Split", ["selected", integers("split", 1, 1, 1)], "image_column", axis=1)
    body.node[-1].output.extend(["class_column", "prior_column"])
    for column in ("image", "class", "prior"):
        add("Squeeze", [f"{column}_column", second], {"image": "image"}.get(column, f"{column}_index"))
    add("Add", ["class_index", second], "labels")
    add("Concat", ["image_column", "prior_column"], "of_boxes", axis=1)
    add("GatherND", ["clipped", "of_boxes"], "boxes")
    add("GatherND", ["by_class", "selected"], "scores")
    del body.output[:]
    for name, data_type, shape in (
        ("image", kind.INT64, ["objects"]),
        ("labels", kind.INT64, ["objects"]),
        ("boxes", kind.FLOAT, ["objects", 4]),
        ("scores", kind.FLOAT, ["objects"]),
    ):
        body.output.append(helper.make_tensor_value_info(name, data_type, shape))

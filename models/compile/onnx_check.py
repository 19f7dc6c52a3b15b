"""Whether an ONNX file can be a graph of axond, before a runtime that does what it is told reads it.

Only operators that ``compile.onnx`` writes, with all their tensors inside the file: nothing of other domains, no
loop but the Scan over the raster, no file elsewhere, no tensor that is larger than its data.
Format: protocol buffers' encoding (https://protobuf.dev/programming-guides/encoding) of onnx.proto3.
"""

import math
from collections.abc import Iterator

from models.base import BadModel

OPERATORS = frozenset(
    [
        "Add", "Cast", "Clip", "Concat", "Conv", "Div", "Greater", "Identity", "MatMulInteger", "Mul", "Reshape",
        "Scan", "Slice", "Where",
    ]
)  # fmt: skip
MAX_ATTRIBUTE = 4096
"""Of strides and paddings."""
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 11: 8}
"""Of TensorProto.DataType: FLOAT, UINT8, INT8, INT32, INT64, DOUBLE."""

Field = tuple[int, int, bytes]
"""Number, value of a number, content of a message or text."""


def check(model: bytes, where: str) -> None:
    """Raise BadModel unless ``model`` holds nothing but what axond compiles."""
    try:
        graphs = [
            content for number, _, content in _fields(model, (1, 2, 3, 4, 5, 6, 7, 8, 14)) if number == 7 and content
        ]
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs")
        _check_graph(graphs[0], inner=False)
    except (ValueError, IndexError) as error:
        raise BadModel(f"{where} is no graph of axond ({error}); build the bundle anew") from error


def _fields(message: bytes, allowed: tuple[int, ...]) -> Iterator[Field]:
    """The fields of a message. Raises ValueError or IndexError for others than ``allowed`` and for damage."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if number not in allowed:
            raise ValueError(f"it has an odd part {number}")
        value, content = 0, b""
        if kind == 0:
            value, at = _varint(message, at)
        elif kind == 2:
            size, at = _varint(message, at)
            content = message[at : at + size]
            at += size
        elif kind == 5:
            at += 4
        else:
            raise ValueError(f"it has a part of kind {kind}")
        if at > len(message):
            raise ValueError("it is cut off")
        yield number, value, content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("it has a number without end")


def _numbers(value: int, content: bytes) -> list[int]:
    """Of a repeated field, packed or not."""
    if not content:
        return [value]
    found, at = [], 0
    while at < len(content):
        number, at = _varint(content, at)
        found.append(number)
    return found


def _check_graph(graph: bytes, *, inner: bool) -> None:
    for number, _, content in _fields(graph, (1, 2, 5, 10, 11, 12, 13)):
        if number == 1:
            _check_node(content, inner=inner)
        elif number == 5:
            _check_tensor(content)


def _check_node(node: bytes, *, inner: bool) -> None:
    for number, _, content in _fields(node, (1, 2, 3, 4, 5, 6, 7)):
        text = content.decode() if number != 5 else ""
        if number == 4 and (text not in OPERATORS or (inner and text == "Scan")):
            raise ValueError(f"operator {text[:40]!r} is not one of axond's")
        if number == 7 and text not in {"", "ai.onnx"}:
            raise ValueError(f"it has an operator of {text[:40]!r}")
        if number == 5:
            _check_attribute(content, inner=inner)


def _check_attribute(attribute: bytes, *, inner: bool) -> None:
    for number, value, content in _fields(attribute, (1, 2, 3, 4, 6, 8, 13, 20)):
        if number == 6:
            if inner:
                raise ValueError("it has a graph in a graph in a graph")
            _check_graph(content, inner=True)
        if number == 8 and any(one > MAX_ATTRIBUTE for one in _numbers(value, content)):
            raise ValueError(f"an operator has a size of more than {MAX_ATTRIBUTE}")


def _check_tensor(tensor: bytes) -> None:
    dims: list[int] = []
    item_bytes, stored = 0, 0
    for number, value, content in _fields(tensor, (1, 2, 8, 9, 13, 14)):
        if number in {13, 14}:
            raise ValueError("it refers to tensors in other files")
        if number == 1:
            dims += _numbers(value, content)
        elif number == 2:
            item_bytes = _ITEM_BYTES.get(value, 0)
        elif number == 9:
            stored = len(content)
    if item_bytes == 0 or math.prod(dims) * item_bytes != stored:
        raise ValueError(f"a tensor of shape {dims[:8]} has {stored} bytes")

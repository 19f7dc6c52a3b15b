"""Writes a graph as a TFLite flatbuffer, without TensorFlow. Format: the schema of TFLite, version 3.

Needs the extra ``build``: the packages ``flatbuffers`` and ``tflite`` (that schema in Python).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
import tflite as schema

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_BUFFER_ALIGNMENT = 16
_CODE_LIMIT = 127
"""Codes from here on do not fit into the old field of the operator's code."""
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.bool_): schema.TensorType.BOOL,
}


class GraphWriter:
    """Collects tensors and operators, in the order in which they run. A tensor is known by its number."""

    def __init__(self) -> None:
        self._b = flatbuffers.Builder(1 << 16)
        # The schema keeps buffer 0 empty: it stands for "no constant".
        self._buffers = [self._buffer(b"")]
        self._tensors: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._operators: list[int] = []
        self._codes: list[tuple[int, int]] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []

    def input(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> int:
        """A tensor that the caller fills."""
        self._inputs.append(self._tensor(name, shape, dtype))
        return self._inputs[-1]

    def output(self, tensor: int) -> None:
        """Hand ``tensor`` to the caller."""
        self._outputs.append(tensor)

    def constant(self, name: str, value: npt.NDArray[Any], scale: float | None = None) -> int:
        """A constant; with ``scale`` quantised: each element stands for itself times ``scale``."""
        self._buffers.append(self._buffer(value.tobytes()))
        return self._tensor(name, value.shape, value.dtype, len(self._buffers) - 1, scale)

    def shape(self, tensor: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._shapes[tensor]

    def op(self, kind: str, inputs: Sequence[int], dtype: npt.DTypeLike, *shapes: Sequence[int], **how: Any) -> int:
        """Add an operator; returns its first output, others follow it. It has an output of ``dtype`` per shape.

        ``how`` may hold ``name`` of the first output, ``version`` of the operator, ``options`` (the name of its table
        in the schema) and that table's fields.
        """
        name = how.pop("name", None)
        code = getattr(schema.BuiltinOperator, kind), how.pop("version", 1)
        if code not in self._codes:
            self._codes.append(code)
        table = how.pop("options", None)
        made = [
            self._tensor(name if name and not i else f"{kind.lower()}{len(self._tensors)}", shape, dtype)
            for i, shape in enumerate(shapes)
        ]
        takes, gives = self._ints(inputs), self._ints(made)
        options = None if table is None else self._table(table, **how)
        fields: dict[str, Any] = {"OpcodeIndex": self._codes.index(code), "Inputs": takes, "Outputs": gives}
        if options is not None:
            fields |= {"BuiltinOptionsType": getattr(schema.BuiltinOptions, table), "BuiltinOptions": options}
        self._operators.append(self._table("Operator", **fields))
        return made[0]

    def finish(self, description: str) -> bytes:
        """The file's bytes: the same calls give the same."""
        b = self._b
        codes = [
            self._table("OperatorCode", DeprecatedBuiltinCode=min(code, _CODE_LIMIT), BuiltinCode=code, Version=version)
            for code, version in self._codes
        ]
        graph = self._table(
            "SubGraph",
            Tensors=self._offsets(self._tensors),
            Inputs=self._ints(self._inputs),
            Outputs=self._ints(self._outputs),
            Operators=self._offsets(self._operators),
        )
        model = self._table(
            "Model",
            Version=_SCHEMA_VERSION,
            OperatorCodes=self._offsets(codes),
            Subgraphs=self._offsets([graph]),
            Description=b.CreateString(description),
            Buffers=self._offsets(self._buffers),
        )
        b.Finish(model, _IDENTIFIER)
        return bytes(b.Output())

    def _table(self, name: str, **fields: Any) -> int:
        """Write a table of the schema. Offsets among ``fields`` are of what was written before."""
        getattr(schema, f"{name}Start")(self._b)
        for field, value in fields.items():
            getattr(schema, f"{name}Add{field}")(self._b, value)
        end: Callable[[Any], int] = getattr(schema, f"{name}End")
        return end(self._b)

    def _buffer(self, content: bytes) -> int:
        if not content:
            return self._table("Buffer")
        self._b.Prep(_BUFFER_ALIGNMENT, len(content))
        return self._table("Buffer", Data=self._b.CreateByteVector(content))

    def _tensor(
        self, name: str, shape: Sequence[int], dtype: npt.DTypeLike, buffer: int = 0, scale: float | None = None
    ) -> int:
        b = self._b
        fields: dict[str, Any] = {
            "Shape": self._ints(shape), "Type": _TYPES[np.dtype(dtype)], "Buffer": buffer, "Name": b.CreateString(name)
        }  # fmt: skip
        if scale is not None:
            scales = b.CreateNumpyVector(np.array([scale], np.float32))
            zeros = b.CreateNumpyVector(np.zeros(1, np.int64))
            fields["Quantization"] = self._table("QuantizationParameters", Scale=scales, ZeroPoint=zeros)
        self._tensors.append(self._table("Tensor", **fields))
        self._shapes.append(tuple(shape))
        return len(self._tensors) - 1

    def _ints(self, values: Iterable[int]) -> int:
        offset: int = self._b.CreateNumpyVector(np.array(list(values), np.int32))
        return offset

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._b.PrependUOffsetTRelative(offset)
        end: int = self._b.EndVector()
        return end

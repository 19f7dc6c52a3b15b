"""Whether a flatbuffer can be a step graph, before a runtime that trusts it reads it.

TFLite verifies that the file is well formed, but believes a lot of the graph inside: an operand -1, for one, makes it
crash. So every operator must be one that ``compile.tflite`` writes, and its results must have the shapes and types that
it makes of its operands.
"""

import math
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from models.base import BadModel
from models.compile.flatbuffer import Table
from models.compile.tflite_layout import FILE, INPUT, STATE, STATE_OUT
from models.compile.tflite_rules import FLOAT, INT, OPERATORS, TYPES, Shape, Tensor
from models.network import Network

MAX_CELLS = 1 << 28
"""Of all tensors of a graph together."""
# The fields of the schema's tables that a step graph has: none that names another file or an operator outside.
_MODEL, _GRAPH, _OPERATOR, _TENSOR = (tuple(range(5)),) * 4
_CODE, _BUFFER, _QUANTIZATION = (0, 2, 3), (0,), (2, 3)
_CONV_OPTIONS = tuple(range(6))


def check(content: bytes, network: Network, where: str) -> None:
    """Raise BadModel unless ``content`` is a step graph whose inputs and outputs are those of ``network``."""
    try:
        model = Table.root(content, b"TFL3", _MODEL)
        graphs = model.tables(2, _GRAPH)
        if len(graphs) != 1:
            raise ValueError(f"it has {len(graphs)} graphs")
        _Graph(model, graphs[0]).check(network)
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise BadModel(f"{where}: {FILE} is no step graph of network.npz ({error}); build the bundle anew") from error


class _Graph:
    def __init__(self, model: Table, graph: Table) -> None:
        # A code that does not fit into the old field is in the new one; the runtime takes the greater.
        self._codes = [max(code.number(0, "<b"), code.number(3)) for code in model.tables(1, _CODE)]
        buffers = [buffer.array(0, np.uint8) for buffer in model.tables(4, _BUFFER)]
        self._tensors = [_tensor(table, buffers) for table in graph.tables(0, _TENSOR)]
        if sum(math.prod(tensor.shape) for tensor in self._tensors) > MAX_CELLS:
            raise ValueError(f"its tensors have more than {MAX_CELLS} cells")
        self._inputs, self._outputs = graph.array(1, np.int32).tolist(), graph.array(2, np.int32).tolist()
        self._operators = graph.tables(3, _OPERATOR)
        self._written = {i for i, tensor in enumerate(self._tensors) if tensor.value is not None}

    def check(self, network: Network) -> None:
        """Raise ValueError."""
        state = ((1, 3 * sum(network.neurons)), INT)
        self._expect(self._inputs, {INPUT: ((1, network.features), FLOAT), STATE: state})
        self._write(self._inputs)
        for operator in self._operators:
            self._check(operator)
        self._expect(self._outputs, {STATE_OUT: state})
        if not self._written.issuperset(self._outputs):
            raise ValueError(f"nothing writes {STATE_OUT!r}")

    def _expect(self, numbers: list[int], wanted: dict[str, tuple[Shape, np.dtype[Any]]]) -> None:
        found = {tensor.name: (tensor.shape, tensor.dtype) for tensor in map(self._tensor, numbers)}
        odd = [name for name in wanted | found if wanted.get(name) != found.get(name)]
        if odd or len(numbers) != len(wanted):
            raise ValueError(f"see its {[*odd, *found][0]!r}")

    def _tensor(self, number: int) -> Tensor:
        if number < 0:
            raise ValueError(f"it has no tensor {number}")
        return self._tensors[number]

    def _write(self, numbers: list[int]) -> None:
        for number in numbers:
            if number in self._written:
                raise ValueError(f"tensor {number} is written twice")
            self._written.add(number)

    def _check(self, operator: Table) -> None:
        code = self._codes[operator.number(0, "<I")]
        kind = OPERATORS.get(code)
        if kind is None or operator.number(3, "<B") not in {0, kind.options}:
            raise ValueError(f"operator {code} is not one of axond's")
        takes, gives = operator.array(1, np.int32).tolist(), operator.array(2, np.int32).tolist()
        if kind.name == "FULLY_CONNECTED" and takes[2:] == [-1]:
            takes.pop()
        results = [self._tensor(number) for number in gives]
        if not self._written.issuperset(takes):
            raise ValueError(f"{kind.name} takes a tensor that nothing has written")
        options = operator.table(4, _CONV_OPTIONS)
        kind.check([self._tensor(number) for number in takes], results, options)
        self._write(gives)


def _tensor(table: Table, buffers: list[npt.NDArray[np.uint8]]) -> Tensor:
    shape, dtype = tuple(table.array(0, np.int32).tolist()), TYPES.get(table.number(1, "<b"))
    if dtype is None or not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise ValueError(f"it has a tensor of type {table.number(1, '<b')} and shape {list(shape)}")
    content = buffers[table.number(2, "<I")]
    if len(content) not in {0, math.prod(shape) * dtype.itemsize}:
        raise ValueError(f"a constant of shape {list(shape)} has {len(content)} bytes")
    value = np.frombuffer(content.tobytes(), dtype).reshape(shape) if len(content) else None
    quantization = table.table(4, _QUANTIZATION)
    if quantization is not None and (len(quantization.array(2, np.float32)), len(quantization.array(3, np.int64))) != (
        1,
        1,
    ):
        raise ValueError("it has a tensor that is not quantised by one scale")
    return Tensor(table.text(3), shape, dtype, value, quantization is not None)

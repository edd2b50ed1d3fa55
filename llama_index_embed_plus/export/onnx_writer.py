"""Operator calls -> an ONNX model. Only this module knows how nodes, constants and versions are written.

Guarantees: equal small constants are stored once; names are unique; the model states its opset and IR version;
`save_model` writes weights to a file of their own if protobuf's limit of 2 GB demands it. Does not know: transformers,
quantisation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
"""Operator domain of onnxruntime's own fused kernels."""

OPSET = 21
"""First opset with block-wise QuantizeLinear, which the per-token scales need."""

IR_VERSION = 10
"""The IR version that belongs to opset 21."""

# elements: larger arrays are weights, which are hardly ever equal
_SHARED_CONSTANT = 8192
# protobuf's limit of 2 GB, with room for the nodes
_SINGLE_FILE_BYTES = 1_900_000_000

Input = str | NDArray[Any] | np.generic
"""A tensor of the graph by name, or a constant to be stored."""


class GraphWriter:
    """Collects the nodes and constants of one graph. Each method returns the name of the tensor it made."""

    def __init__(self) -> None:
        # Nodes go straight into the model: a list beside it would hold every weight twice.
        self._model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="llama-index-embed-plus")
        self._graph = self._model.graph
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count: Counter[str] = Counter()

    def constant(self, value: NDArray[Any] | np.generic, name: str | None = None) -> str:
        """Store an array. `name` becomes part of its name, so that a viewer shows which weight it is."""
        array = np.asarray(value)
        # ascontiguousarray would turn a scalar into an array of one
        if array.ndim:
            array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size < _SHARED_CONSTANT else None
        if key in self._constants:
            return self._constants[key]
        name = self._unique(name or "constant")
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        if key is not None:
            self._constants[key] = name
        return name

    def __call__(
        self, operator: str, *inputs: Input, domain: str = "", output: str | None = None, **attributes: Any
    ) -> str:
        """Append one node with one output. An empty string leaves an optional input out."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = output or self._unique(operator)
        self._graph.node.append(helper.make_node(operator, names, [output], domain=domain, **attributes))
        return output

    def microsoft(self, operator: str, *inputs: Input, **attributes: Any) -> str:
        """Append one of onnxruntime's own operators."""
        return self(operator, *inputs, domain=MICROSOFT, **attributes)

    def renamed(self, tensor: str, name: str) -> str:
        """Call a tensor `name`, in the node that makes it and in those that read it: an output without a copy."""
        for node in self._graph.node:
            for names in (node.input, node.output):
                names[:] = [name if known == tensor else known for known in names]
        return name

    def reshape(self, tensor: str, *shape: int) -> str:
        """0 keeps the dimension, -1 takes what is left."""
        return self("Reshape", tensor, int64(*shape))

    def first(self, tensor: str, *, axis: int) -> str:
        """Return position 0 along `axis`. The axis stays, with length 1."""
        return self("Slice", tensor, int64(0), int64(1), int64(axis))

    def filled(self, shape: str, value: np.uint8) -> str:
        """Return a tensor of the shape held in `shape`, every element `value`."""
        return self("ConstantOfShape", shape, value=numpy_helper.from_array(np.array([value])))

    def to_float(self, tensor: str) -> str:
        return self("Cast", tensor, to=TensorProto.FLOAT)

    def to_bool(self, tensor: str) -> str:
        return self("Cast", tensor, to=TensorProto.BOOL)

    def to_int64(self, tensor: str) -> str:
        return self("Cast", tensor, to=TensorProto.INT64)

    def model(
        self,
        outputs: Mapping[str, Sequence[str | int] | None],
        *,
        inputs: Sequence[str],
        scalars: Sequence[str] = (),
    ) -> Any:
        """Finish, once, as `onnx.ModelProto`: int64 `inputs` [batch, sequence], int64 `scalars`, float `outputs`."""
        shapes: dict[str, list[str]] = {name: ["batch", "sequence"] for name in inputs} | {n: [] for n in scalars}
        self._graph.name = "encoder"
        self._graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in shapes.items()
        )
        self._graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
        )
        self._model.opset_import.extend([helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)])
        return self._model

    def _unique(self, name: str) -> str:
        self._count[name] += 1
        return f"{name}_{self._count[name]}"


def int64(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def save_model(model: Any, path: Path) -> list[Path]:
    """Write `model` to `path`. Weights beyond 2 GB go to `path` + ".data" beside it.

    Returns the files written, the model file first. The data file must stay beside the model file.
    """
    if sum(map(_bytes_of, model.graph.initializer)) <= _SINGLE_FILE_BYTES:
        onnx.save(model, path)
        return [path]
    data = path.with_name(path.name + ".data")
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    return [path, data]


def _bytes_of(tensor: Any) -> int:
    """Return the size of a weight. protobuf cannot say the size of anything beyond 2 GB."""
    return int(math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)

"""A precision -> how onnxruntime is to open a graph of it, so that int8 products are exact on every processor.

x86 processors without VNNI multiply bytes in 16-bit sums that saturate: the vectors of an int8 build would be other
ones there. onnxruntime can multiply unsigned weights instead, which is exact everywhere and slower than VNNI; the
rewriting that it takes belongs to its second level of optimisation.

Guarantees: what is measured is the processor, not its name. Does not know: graphs.
"""

from __future__ import annotations

import base64
from functools import cache

import numpy as np
import onnxruntime

# One MatMulInteger of unsigned "a" and signed "b", both of any shape: opset 10, IR version 5.
PRODUCT = base64.b64decode(
    "CAU6UAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgFnWg8KAWESCgoICAISBAoACgBaDwoBYhIKCggIAxIECgAKAGIPCgF5EgoKCAgGEgQKAAoA"
    "QgQKABAK"
)
DEPTH = 64


def session_options(threads: int, *, int8: bool) -> onnxruntime.SessionOptions:
    """The options under which a graph is opened for serving."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Higher levels fuse Add and LayerNormalization into a kernel that is slower on a CPU.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if int8 and products_saturate():
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@cache
def products_saturate() -> bool:
    """Whether sums of the largest products of unsigned and signed bytes come out too small on this processor."""
    session = onnxruntime.InferenceSession(PRODUCT, providers=["CPUExecutionProvider"])
    largest = {"a": np.full((4, DEPTH), 255, np.uint8), "b": np.full((DEPTH, 16), 127, np.int8)}
    return bool((session.run(None, largest)[0] != 255 * 127 * DEPTH).any())

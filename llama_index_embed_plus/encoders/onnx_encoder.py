"""An ONNX graph, run by onnxruntime: token batches -> vectors. Needs no torch.

Threads follow the work. A single batch gets a session that uses all cores. Many batches go to a single-threaded session
that is called from one thread per core, which is faster because threads rarely wait for each other.

x86 processors without VNNI add products of bytes in 16-bit sums that saturate, so an int8 graph would give other
vectors there. On such a processor the session multiplies unsigned weights instead: exact everywhere, but slower.

Guarantees: both sessions give the same vectors up to rounding; a forked child opens sessions of its own; saturation is
measured, not guessed from the processor's name. A graph from somebody else runs the operators that onnxruntime brings,
on files of its own folder, and has no loops and no functions of its own; what is wrong with it is one error. Does not
know: texts.
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnxruntime

from llama_index_embed_plus.encoders.text_encoder import Runtime, out_of_memory_message
from llama_index_embed_plus.encoders.tokens import TokenBatch
from llama_index_embed_plus.errors import DamagedModelError, ModelError
from llama_index_embed_plus.models.pooling import (
    TOKEN_STATES,
    Stretch,
    apply_head,
    as_arrays,
    pool,
    pool_stretches,
    unit,
)
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from qdrant_tools.client.forks import abandon, end_without_destructors, renew_in_children
from qdrant_tools.errors import NotSupportedError, PlusError, UsageError, first_line
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.records import Vectors

BATCH_TOKENS = 512
"""Padded tokens per batch. More does not run faster on a CPU, and pads more."""

_INPUTS: Mapping[str, Callable[[TokenBatch], Any]] = {
    "input_ids": lambda batch: batch.ids,
    "attention_mask": lambda batch: batch.mask,
    # a single text is all of type 0; the tokenizer is refused if it says otherwise
    "token_type_ids": lambda batch: np.zeros_like(batch.ids),
    "prompt_tokens": lambda batch: np.asarray(batch.prompt_tokens, np.int64),
}

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "openvino": "OpenVINOExecutionProvider"}


class OnnxBackend:
    """Token batches -> vectors by one graph file. A graph that ends in token states is pooled here."""

    def __init__(
        self,
        file: Path,
        folder: Path,
        spec: EncoderSpec,
        *,
        build: str = "onnx-fp32",
        device: str | None = None,
        runtime: Runtime | None = None,
        graph: bytes | None = None,
    ) -> None:
        """graph: the graph where it stands in no file; `file` is then what messages name."""
        runtime = runtime or Runtime()
        self.build = build
        self.workers = runtime.threads or cores()
        self.budget = runtime.batch_tokens or BATCH_TOKENS
        self._providers = providers(device)
        self._file, self._spec, self._graph = file, spec, graph
        self._lock = threading.Lock()
        self._sessions: dict[int, Any] = {}
        if graph is None:
            check_graph(file)
        session = self._session(self.workers)
        self._inputs = input_names(session, file)
        self._output, self._pooled = _output(session, file)
        self._states = TOKEN_STATES if TOKEN_STATES in _outputs(session) else None if self._pooled else self._output
        self._head = [
            as_arrays({k: v for f in weight_files(folder / step.path) for k, v in tensors_of(f).items()})
            for step in spec.head
        ]
        renew_in_children(self, OnnxBackend._renew)

    def _renew(self) -> None:
        """In a forked child: sessions have threads, which it lacks, and wait for them when they are closed."""
        abandon(*self._sessions.values())
        end_without_destructors()
        self._lock, self._sessions = threading.Lock(), {}

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors:
        return self._run(
            batch, self._output, lambda result: result if self._pooled else self._pool(result, batch), alone
        )

    def stretches(self, batch: TokenBatch, stretches: Sequence[Stretch], *, alone: bool) -> Vectors:
        if self._states is None:
            raise NotSupportedError(
                f"{self._file} has no token states, which late chunking needs: export it again, or use backend='torch'"
            )

        def finish(states: Any) -> Any:
            states = states.swapaxes(0, 1) if self._states == TOKEN_STATES else states
            self._check_states(states, batch)
            return self._finish(pool_stretches(states, stretches))

        return self._run(batch, self._states, finish, alone)

    def _run(self, batch: TokenBatch, output: str, finish: Callable[[Any], Any], alone: bool) -> Vectors:
        session = self._session(self.workers if alone else 1)
        try:
            return np.asarray(finish(session.run([output], feed(self._inputs, batch))[0]), np.float32)
        except PlusError:
            raise
        except Exception as error:  # onnxruntime's errors share no base class; an odd graph may give anything
            if "allocate memory" in str(error) or isinstance(error, MemoryError):
                raise ModelError(out_of_memory_message(batch, "this machine")) from error
            shape = batch.ids.shape
            raise ModelError(f"{self._file} cannot be run on {shape} tokens ({first_line(error)})") from error

    def _pool(self, states: Any, batch: TokenBatch) -> Any:
        self._check_states(states, batch)
        return self._finish(pool(states, batch.mask, self._spec.pooling, prompt_tokens=batch.prompt_tokens))

    def _check_states(self, states: Any, batch: TokenBatch) -> None:
        if states.ndim != 3 or states.shape[:2] != batch.ids.shape:
            raise DamagedModelError(f"{self._file} gives {states.shape} for {batch.ids.shape} tokens: export it again")

    def _finish(self, vectors: Any) -> Any:
        vectors = apply_head(vectors, self._spec.head, self._head)[:, : self._spec.dimension]
        return unit(vectors) if self._spec.normalize else vectors

    def _session(self, threads: int) -> Any:
        """The session with that many threads, opened at its first use."""
        # A server of single queries never needs the session for bulk work.
        with self._lock:
            if threads not in self._sessions:
                int8 = self.build == "onnx-int8"
                graph = self._file if self._graph is None else self._graph
                self._sessions[threads] = open_session(graph, threads, providers=self._providers, int8=int8)
        return self._sessions[threads]


def providers(device: str | None) -> list[Any]:
    """onnxruntime's execution providers for a device. Raises UsageError if this installation lacks it."""
    kind, _, number = (device or "cpu").partition(":")
    name = _PROVIDERS.get(kind)
    if name is None:
        raise UsageError(f"device {device!r} is unknown to ONNX builds, expected one of {', '.join(_PROVIDERS)}")
    if name not in onnxruntime.get_available_providers():
        raise UsageError(f"device {device!r} needs {name}, which this onnxruntime does not have; use 'cpu'")
    chosen = (name, {"device_id": int(number)}) if number.isdigit() else name
    # the CPU computes what the provider of a device does not support
    return [chosen] if kind == "cpu" else [chosen, "CPUExecutionProvider"]


_LARGEST_GRAPH = 1 << 31
_LOOP = re.compile(rb"(\x22|\xa2\x80*\x00)(\x04|\x84\x80*\x00)(Loop|Scan)")
"""A node that repeats others, as protobuf writes it: the field 4 (op_type), its length, its name."""
_CHUNK, _OVERLAP = 1 << 22, 64


def check_graph(file: Path) -> None:
    """Refuse a graph that may run without end, or that protobuf cannot hold.

    Raises:
        DamagedModelError: it has more than 2 GB.
        NotSupportedError: it has loops, or functions of its own. No encoder of texts needs them.
    """
    with open_regular(file, DamagedModelError) as stream:
        if (size := os.fstat(stream.fileno()).st_size) > _LARGEST_GRAPH:
            raise DamagedModelError(f"{file} has {size:,} bytes, expected at most {_LARGEST_GRAPH:,}; export it again")
        seen = b""
        while chunk := stream.read(_CHUNK):
            if _LOOP.search(seen + chunk):
                raise NotSupportedError(
                    f"{file} has loops, which may never end; use backend='torch', or export it again"
                )
            seen = chunk[-_OVERLAP:]
        # thirty functions, each of which calls the next one twice, are a thousand million nodes
        if _FUNCTIONS in _fields(stream, size):
            raise NotSupportedError(
                f"{file} has functions of its own, which may grow without end; use backend='torch', or export it again"
            )


_FUNCTIONS = 25
"""The field of a graph file (ModelProto) that holds functions."""


def _fields(stream: BinaryIO, size: int) -> Iterator[int]:
    """Yield the number of each field of a protobuf file, until something is none: onnxruntime says what is wrong."""
    stream.seek(0)
    while stream.tell() < size and (key := _varint(stream)) is not None:
        yield key >> 3
        kind = key & 7
        length = _varint(stream) if kind in (0, 2) else {1: 8, 5: 4}.get(kind)
        if length is None:
            return
        if kind:  # a number is read already
            stream.seek(min(length, size), os.SEEK_CUR)


def _varint(stream: BinaryIO) -> int | None:
    """A number of up to ten bytes, seven bits in each, the lowest first. None: there is none."""
    number = 0
    for place in range(10):
        byte = stream.read(1)
        if not byte:
            return None
        number |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return number
    return None


def open_session(graph: Path | bytes, threads: int, *, providers: list[Any], int8: bool) -> Any:
    """Open a graph. Raises DamagedModelError if onnxruntime cannot read it."""
    try:
        return _opened(graph, session_options(threads, int8=int8), providers)
    except DamagedModelError:
        if not int8:
            raise
        # onnxruntime cannot make a weight unsigned that two products read. If vectors differ, the self-check finds it.
        return _opened(graph, session_options(threads, int8=False), providers)


def _opened(graph: Path | bytes, options: onnxruntime.SessionOptions, providers: list[Any]) -> Any:
    try:
        given = str(graph) if isinstance(graph, Path) else graph
        return onnxruntime.InferenceSession(given, options, providers=providers)
    except Exception as error:  # onnxruntime's errors share no base class
        name = graph if isinstance(graph, Path) else "the graph of its weights"
        raise DamagedModelError(
            f"{name} cannot be opened by onnxruntime ({first_line(error)}); export it again"
        ) from error


def input_names(session: Any, graph: object) -> list[str]:
    """Return the inputs of a graph. Raises DamagedModelError, naming `graph`, for one that `feed` does not have."""
    names = [node.name for node in session.get_inputs()]
    unknown = [name for name in names if name not in _INPUTS]
    if unknown:
        raise DamagedModelError(f"{graph} expects the inputs {unknown}, this project gives {sorted(_INPUTS)}")
    return names


def feed(inputs: Sequence[str], batch: TokenBatch) -> dict[str, Any]:
    """Return the values of the inputs of a graph for one batch."""
    # Graphs from a hub read token types, ours do not. A session refuses inputs that it does not know.
    return {name: _INPUTS[name](batch) for name in inputs}


def cores() -> int:
    """Cores this process may use."""
    try:
        # not cpu_count: a container or taskset may allow only some of the cores
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on this operating system
        return os.cpu_count() or 1


def _outputs(session: Any) -> list[str]:
    return [node.name for node in session.get_outputs()]


def _output(session: Any, file: Path) -> tuple[str, bool]:
    """Return the name of the output to read, and whether it is pooled already."""
    outputs = _outputs(session)
    if "embedding" in outputs:
        return "embedding", True
    for name in ("last_hidden_state", "token_embeddings"):
        if name in outputs:
            return name, False
    raise DamagedModelError(f"{file} gives {sorted(outputs)}, expected 'embedding' or 'last_hidden_state'")


# One MatMulInteger of unsigned "a" and signed "b", both of any shape: opset 10, IR version 5.
# Stored as bytes, because serving does not install the onnx package that could build it.
_PRODUCT = base64.b64decode(
    "CAU6UAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgFnWg8KAWESCgoICAISBAoACgBaDwoBYhIKCggIAxIECgAKAGIPCgF5EgoKCAgGEgQKAAoA"
    "QgQKABAK"
)
# two of the largest products, 2 * 255 * 127, already exceed a signed 16-bit sum
_DEPTH = 64


def session_options(threads: int, *, int8: bool) -> onnxruntime.SessionOptions:
    """Return the options with which a graph is opened for serving."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # its errors are raised, and ours say what they are about
    # Higher levels fuse Add and LayerNormalization into a kernel that is slower on a CPU.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if int8 and products_saturate():  # the rewriting to unsigned weights belongs to the second level
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@cache
def products_saturate() -> bool:
    """Whether sums of the largest products of unsigned and signed bytes come out too small on this processor."""
    session = onnxruntime.InferenceSession(_PRODUCT, providers=["CPUExecutionProvider"])
    largest = {"a": np.full((4, _DEPTH), 255, np.uint8), "b": np.full((_DEPTH, 16), 127, np.int8)}
    return bool((session.run(None, largest)[0] != 255 * 127 * _DEPTH).any())

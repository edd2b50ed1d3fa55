"""A model's name or folder -> a TextEncoder. The door behind which torch and onnxruntime wait.

`identify` says what `open_encoder` would open, without importing either of them.

A few texts with the vectors a build gave where it was made -> whether it gives them here.

int8 products saturate on some processors, and another onnxruntime may compute otherwise: nothing fails then, the
vectors are just other ones. Comparing eight of them when a model is opened costs milliseconds and finds it.
Guarantees: the bound is on the cosine of each text's vector to the recorded one.
Does not know: how vectors are computed.

A model -> everything that decides its vectors, each fact with the file or rule it comes from.

Guarantees: nothing is computed and no heavy library is imported; what is assumed says so.
Does not know: how to print it.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.encoders.text_encoder import Backend, Runtime, TextEncoder
from llama_index_embed_plus.encoders.tokens import Ids, TokenBatch, Tokenizer
from llama_index_embed_plus.errors import DamagedModelError, ParityError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.families import family_of
from llama_index_embed_plus.models.files import read_json, resolve
from llama_index_embed_plus.models.spec import EncoderSpec, Overrides, read_spec, space_of
from llama_index_embed_plus.models.weights import weight_files
from qdrant_tools.errors import UsageError
from qdrant_tools.records import Vectors

__all__ = ["BackendName", "Identity", "Overrides", "Runtime", "TextEncoder", "identify", "open_encoder"]

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "onnx", "onnx-fp32", "onnx-int8"]


@dataclass(frozen=True)
class Identity:
    """What a name or folder stands for. `build` tells how its vectors are computed, `space` which they are."""

    folder: Path
    spec: EncoderSpec
    space: str
    build: str
    onnx_file: Path | None
    """The graph that is run; None: torch runs the weights."""
    adapter: QueryAdapter | None


def identify(
    model: str | Path,
    *,
    backend: BackendName = "auto",
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    overrides: Overrides | None = None,
    trust_remote_code: bool = False,
) -> Identity:
    """Say what `open_encoder` with the same arguments would open. Reads files, imports no heavy library."""
    if backend not in get_args(BackendName):
        raise UsageError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")
    folder = resolve(
        model,
        revision=revision,
        cache_folder=cache_folder,
        graphs=backend != "torch",
        trust_remote_code=trust_remote_code,
    )
    manifest = artifact.verify_small_files(folder) if artifact.is_artifact(folder) else None
    spec = read_spec(folder, overrides)
    graph = _pick_graph(folder, manifest, spec, backend)
    # A graph's own hash was checked: the weights it was made from need not be there, nor be read again.
    space = space_of(folder, spec, weights=manifest.weights if manifest and graph else None)
    if manifest is not None and spec == manifest.spec and manifest.space != space:
        raise DamagedModelError(
            f"{folder} was sealed as {manifest.space} but holds {space}: a file was exchanged; export it again"
        )
    # Only now: an adapter belongs to one space.
    adapter = _adapter(folder, space)
    build = (graph.build if graph else "torch-fp32") + ("+adapter" if adapter else "")
    return Identity(folder, spec, space, build, graph.file if graph else None, adapter)


def open_encoder(
    model: str | Path,
    *,
    backend: BackendName = "auto",
    device: str | None = None,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    overrides: Overrides | None = None,
    runtime: Runtime | None = None,
) -> TextEncoder:
    """Open a hub name, a model folder, an ONNX folder or an artifact as its authors meant it.

    backend: `auto` takes an artifact's ONNX build (int8 before fp32), of other folders the weights, or the ONNX file
    where there are no weights or no torch.
    device: of torch, such as "cpu" or "cuda:0"; None: a GPU if there is one. Of ONNX: "cpu" (None), "cuda", "openvino".
    revision, cache_folder: of a hub name, as in huggingface_hub.
    Raises ModelNotFoundError, DamagedModelError, UsageError, NotSupportedError, MissingExtraError, ParityError.
    """
    runtime = runtime or Runtime()
    found = identify(
        model,
        backend=backend,
        revision=revision,
        cache_folder=cache_folder,
        overrides=overrides,
        trust_remote_code=runtime.trust_remote_code,
    )
    for name, source in found.spec.sources.items():
        if source.startswith("assumed") and not artifact.is_artifact(found.folder):
            logger.warning("%s: %s=%r is %s", found.folder, name, getattr(found.spec, name), source)
    engine = _backend(found, device, runtime)
    if found.onnx_file is not None:
        engine = _checked(engine, found, device, runtime)
    refusal = artifact.refusal(found.folder)
    return TextEncoder(found.spec, found.space, found.folder, engine, adapter=found.adapter, refusal=refusal)


def _backend(found: Identity, device: str | None, runtime: Runtime) -> Backend:
    if found.onnx_file is not None:
        from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend

        build = found.build.removesuffix("+adapter")
        return OnnxBackend(found.onnx_file, found.folder, found.spec, build=build, device=device, runtime=runtime)
    from llama_index_embed_plus.encoders.torch_encoder import TorchBackend

    return TorchBackend(found.folder, found.spec, device=device, runtime=runtime)


def _checked(backend: Backend, found: Identity, device: str | None, runtime: Runtime) -> Backend:
    """Compare a few vectors with those from where the build was made; give the fp32 build if they are others."""
    mismatch = fault(backend, found.folder)
    if mismatch is None:
        return backend
    fallback = artifact.onnx_build(found.folder, artifact.read_manifest(found.folder), found.spec, build="onnx-fp32")
    if runtime.on_mismatch == "error" or fallback is None or fallback.file == found.onnx_file:
        raise ParityError(f"{found.folder}: {mismatch}; use backend='torch', or export it again on this machine")
    logger.warning("%s: %s; the fp32 build is used instead", found.folder, mismatch)
    build = found.build.replace("onnx-int8", "onnx-fp32")
    other = replace(found, onnx_file=fallback.file, build=build)
    return _checked(_backend(other, device, runtime), other, device, runtime)


def _pick_graph(
    folder: Path, manifest: artifact.Manifest | None, spec: EncoderSpec, backend: BackendName
) -> artifact.Build | None:
    """The graph to run; None: torch is to run the weights."""
    if backend == "torch":
        return None
    if backend == "auto" and manifest is None and _torch_can_run(folder, spec):
        return None
    if backend == "auto" and manifest is not None and not artifact.fits(manifest, spec):
        return None  # the graph has another pooling inside; the weights can do both
    build = backend if backend in ("onnx-fp32", "onnx-int8") else None
    graph = artifact.onnx_build(folder, manifest, spec, build=build)
    if graph is None and backend != "auto":
        raise UsageError(
            f"{str(folder)!r} has no {build or 'ONNX'} build; make one with `embed-plus export`, or use backend='torch'"
        )
    return graph


def _torch_can_run(folder: Path, spec: EncoderSpec) -> bool:
    has_torch = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return has_torch and bool(weight_files(folder / spec.transformer_path))


def _adapter(folder: Path, space: str) -> QueryAdapter | None:
    place = folder / artifact.ADAPTER
    if not place.is_dir():
        return None
    adapter = QueryAdapter.load(place)
    if adapter.space != space:
        raise DamagedModelError(f"{place} was fitted in {adapter.space}, this model is {space}: fit it again")
    return adapter


FILE = "onnx/self_check.json"

TEXTS = (
    "How do I sort a list of numbers?",
    "Return the median of a sequence; raise an error if it is empty.",
    "The train to Munich leaves ten minutes late from platform 7.",
    "x",
    "Les résultats sont classés par pertinence décroissante.",
    "SELECT name, count(*) FROM visits GROUP BY name HAVING count(*) > 3",
    "----+----+----+----+----+----+----+----",
    "東京の天気は明日から雨になるでしょう。",
)

BOUNDS = {"onnx-int8": 0.9995, "onnx-fp32": 0.99999}
"""Lowest cosine. An int8 build that rounds a few values otherwise stays above; one that saturates does not."""


class Runs(Protocol):
    """What is needed of a backend here."""

    build: str

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors: ...


def recorded(backend: Runs, tokenizer: Tokenizer) -> dict[str, Any]:
    """What to keep of a build: the token ids of TEXTS and their vectors, text by text."""
    sequences = tokenizer.cut(TEXTS).ids
    vectors = _run(backend, sequences)
    return {
        "ids": [ids.tolist() for ids in sequences],
        "vectors": [[round(value, 6) for value in row] for row in vectors.tolist()],
    }


def fault(backend: Runs, folder: Path) -> str | None:
    """What is wrong with the build on this machine; None: nothing, or nothing was recorded."""
    saved = (read_json(folder, FILE) or {}).get(backend.build)
    if saved is None:
        return None
    try:
        expected = np.asarray(saved["vectors"], np.float32)
        vectors = _run(backend, [np.asarray(ids, np.int32) for ids in saved["ids"]])
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        lowest = float((np.sum(vectors * expected, axis=1) / np.maximum(lengths, 1e-12)).min())
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedModelError(f"{folder / FILE} does not fit the {backend.build} build ({error})") from error
    if lowest >= BOUNDS[backend.build]:
        return None
    return f"the {backend.build} build gives other vectors here than where it was made (cosine {lowest:.4f} at worst)"


def _run(backend: Runs, sequences: Sequence[Ids]) -> Vectors:
    """One text at a time: no padding, so nothing but the arithmetic is compared."""
    batches = [TokenBatch(ids[None].astype(np.int64), np.ones((1, len(ids)), np.int64)) for ids in sequences]
    return np.concatenate([backend(batch, alone=True) for batch in batches])


_SHOWN = (
    *("model_type", "dimension", "max_tokens", "long_text", "pooling", "include_prompt", "head", "normalize"),
    *("query_prompt", "passage_prompt", "lowercase", "append_eos", "truncate_dim"),
)
_BY_DEFAULT = "default of this project"


@dataclass(frozen=True)
class Fact:
    """One property of the encoder. `source`: a file of the folder, a published page, the caller, or a default."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class Description:
    """What `describe` found."""

    folder: Path
    space: str
    build: str
    """What `open_encoder` would run."""
    spec: EncoderSpec
    facts: tuple[Fact, ...]
    builds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The builds of an artifact, with the parity report of each."""
    notes: tuple[str, ...] = ()
    """What a user should know and no file says."""


def describe(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    overrides: Overrides | None = None,
) -> Description:
    """Describe what `open_encoder` with the same arguments would open. Raises what it would raise about files."""
    found = identify(model, revision=revision, cache_folder=cache_folder, overrides=overrides)
    sources = found.spec.sources
    facts = tuple(Fact(name, getattr(found.spec, name), sources.get(name, _BY_DEFAULT)) for name in _SHOWN)
    builds = artifact.read_manifest(found.folder).builds if artifact.is_artifact(found.folder) else {}
    return Description(
        found.folder, found.space, found.build, found.spec, facts, builds, _notes(found.folder, found.spec)
    )


def _notes(folder: Path, spec: EncoderSpec) -> tuple[str, ...]:
    notes = [f"{name} is assumed" for name, source in spec.sources.items() if source.startswith("assumed")]
    family = family_of(folder)
    if family is not None and family.note:
        notes.append(family.note)
    config = read_json(folder / spec.transformer_path, "config.json") or {}
    if "auto_map" in config:
        notes.append("the folder ships its own model code, which is not run unless it is trusted")
    saved = read_json(folder, "config_sentence_transformers.json") or {}
    default = saved.get("default_prompt_name")
    if default and default not in ("query", "document", "passage", "corpus"):
        notes.append(f"the default prompt {default!r} is not used: queries and passages have prompts of their own")
    return tuple(notes)

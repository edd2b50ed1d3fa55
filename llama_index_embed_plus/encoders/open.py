"""A model's name or folder -> a `TextEncoder`, without importing torch or onnxruntime before they are needed.

Without torch, the weights of the BERT family are run all the same: their graph is built when they are opened (extra
`export`), which takes a second or two and the memory of the weights twice. An export saves both.

`open_encoder` opens a model. `identify` takes the same arguments (`ModelArguments`) and says what would be opened.
`describe` says where each fact about the model comes from. The last two only read files.

Guarantees: an artifact's files are what its manifest says; an adapter fits its model; what is assumed is reported.
"""

from __future__ import annotations

import importlib.util
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from llama_index_embed_plus.encoders.adapter import QueryAdapter
from llama_index_embed_plus.encoders.late import with_late_chunking
from llama_index_embed_plus.encoders.self_check import find_mismatch
from llama_index_embed_plus.encoders.text_encoder import Backend, Runtime, TextEncoder
from llama_index_embed_plus.encoders.tokens import Tokenizer
from llama_index_embed_plus.errors import DamagedModelError, MissingExtraError, ParityError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.config import FOR_DOT
from llama_index_embed_plus.models.families import family_of
from llama_index_embed_plus.models.files import read_json
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.models.spec import EncoderSpec, Overrides, read_spec, space_of
from llama_index_embed_plus.models.weights import weight_files
from qdrant_tools.client.forks import undivided
from qdrant_tools.errors import UsageError

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "onnx", "onnx-fp32", "onnx-int8"]


class ModelArguments(TypedDict, total=False):
    """The keywords that `identify` and `open_encoder` share: everything that decides which vectors a model gives."""

    backend: BackendName
    revision: str | None
    cache_folder: str | Path | None
    overrides: Overrides | None
    runtime: Runtime | None


@dataclass(frozen=True)
class Identity:
    """The model behind a name or folder. `space` names its vectors, `build` says how they are computed."""

    folder: Path
    spec: EncoderSpec
    space: str
    build: str
    onnx_file: Path | None
    """The graph to run. None: torch runs the weights, or `build` is onnx-fp32 and their graph is built first."""
    adapter: QueryAdapter | None


def identify(
    model: str | Path,
    *,
    backend: BackendName = "auto",
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    overrides: Overrides | None = None,
    runtime: Runtime | None = None,
) -> Identity:
    """Say what `open_encoder` with the same arguments would open. Reads files; imports neither torch nor onnxruntime.

    Raises the errors of `open_encoder` that are about names and files.
    """
    if backend not in get_args(BackendName):
        raise UsageError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")
    folder = resolve(
        model,
        revision=revision,
        cache_folder=cache_folder,
        graphs=backend != "torch",
        trust_remote_code=runtime is not None and runtime.trust_remote_code,
    )
    # All files but weights and graphs, which may be gigabytes. Of these, only what is used is hashed, further down.
    manifest = artifact.verify_small_files(folder) if artifact.is_artifact(folder) else None
    spec = read_spec(folder, overrides)
    graph = _pick_graph(folder, manifest, spec, backend)
    # The hash of a graph was checked already. Its weights need not be read again, and may have been left out.
    space = space_of(folder, spec, weights=manifest.weights if manifest and graph else None)
    # with overrides the space differs for a good reason
    if manifest is not None and spec == manifest.spec and manifest.space != space:
        raise DamagedModelError(
            f"{folder} was written as {manifest.space} but holds {space}: a file was exchanged; export it again"
        )
    # An adapter belongs to one space, which is known only now.
    adapter = _adapter(folder, space)
    build = graph.build if graph else "onnx-fp32" if _builds_graph(folder, spec, backend) else "torch-fp32"
    build += "+adapter" if adapter else ""
    return Identity(folder, spec, space, build, graph.file if graph else None, adapter)


@dataclass(frozen=True)
class ModelTokens:
    """How a model reads texts, without what computes its vectors."""

    folder: Path
    spec: EncoderSpec
    tokenizer: Tokenizer


def open_tokenizer(model: str | Path) -> ModelTokens:
    """Open what counts a model's tokens: small files only, neither weights nor graphs.

    Raises the errors of `open_encoder` that are about names and small files.
    """
    folder = resolve(model)
    spec = read_spec(folder, None)
    tokenizer = Tokenizer(
        folder / spec.transformer_path, spec.max_tokens, lowercase=spec.lowercase, append_eos=spec.append_eos
    )
    return ModelTokens(folder, spec, tokenizer)


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

    Args:
        backend: `auto` takes an artifact's ONNX build, int8 before fp32. Of other folders it takes the weights, or the
            ONNX file if there are no weights or no torch.
        device: For torch "cpu", "cuda:0" and so on; None takes a GPU if there is one. For ONNX "cpu" (None), "cuda" or
            "openvino".
        revision: Branch, tag or commit of a hub name.
        cache_folder: Where models from the hub are kept, as in huggingface_hub.
        overrides: What is to differ from the model's own files. Each override changes the space.
        runtime: How the model is run. Nothing in it changes the space.

    Raises:
        ModelNotFoundError: No such model, or it is not here and the hub cannot be reached.
        DamagedModelError: A file is missing, damaged, or contradicts another.
        UsageError, NotSupportedError: An argument, or something the model asks for, cannot be honoured.
        MissingExtraError: The library that runs the model is not installed.
        ParityError: The build gives other vectors on this machine, and there is no other build.
    """
    runtime = runtime or Runtime()
    identity = identify(
        model, backend=backend, revision=revision, cache_folder=cache_folder, overrides=overrides, runtime=runtime
    )
    folder, spec = identity.folder, identity.spec
    for name, source in spec.sources.items():
        if source.startswith(("assumed", FOR_DOT)) and not artifact.is_artifact(folder):
            logger.warning("%s: %s=%r is %s", folder, name, getattr(spec, name), source)
    refusal = artifact.refusal(folder)
    # a child that is forked while a library is imported here would wait for that for ever
    with undivided():
        engine = _open_backend(identity, device, runtime)
        encoder = TextEncoder(spec, identity.space, folder, engine, adapter=identity.adapter, refusal=refusal)
        return with_late_chunking(encoder) if spec.late else encoder


def _open_backend(identity: Identity, device: str | None, runtime: Runtime) -> Backend:
    """Open the graph or the weights. A graph that gives other vectors here is replaced by the fp32 build."""
    if identity.onnx_file is None and identity.build.startswith("onnx"):
        return _built(identity, device, runtime)
    if identity.onnx_file is None:
        _require_torch(identity)
        from llama_index_embed_plus.encoders.torch_encoder import TorchBackend

        return TorchBackend(identity.folder, identity.spec, device=device, runtime=runtime)
    from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend

    folder, spec, build = identity.folder, identity.spec, identity.build.removesuffix("+adapter")
    backend = OnnxBackend(identity.onnx_file, folder, spec, build=build, device=device, runtime=runtime)
    mismatch = find_mismatch(backend, folder)
    if mismatch is None:
        return backend
    fallback = artifact.onnx_build(folder, artifact.read_manifest(folder), spec, build="onnx-fp32")
    if runtime.on_mismatch == "error" or fallback is None or fallback.file == identity.onnx_file:
        raise ParityError(f"{folder}: {mismatch}; use backend='torch', or export it again on this machine")
    logger.warning("%s: %s; the fp32 build is used instead", folder, mismatch)
    build = identity.build.replace("onnx-int8", "onnx-fp32")
    # checked like the first: if fp32 differs as well, there is nothing left to fall back to
    return _open_backend(replace(identity, onnx_file=fallback.file, build=build), device, runtime)


def _pick_graph(
    folder: Path, manifest: artifact.ArtifactManifest | None, spec: EncoderSpec, backend: BackendName
) -> artifact.Build | None:
    """Return the graph to run. None: the weights are to be run."""
    if backend == "torch":
        return None
    if backend == "auto" and manifest is None and _torch_can_run(folder, spec):
        return None
    if backend == "auto" and manifest is not None and not artifact.fits(manifest, spec):
        return None  # the graph has another pooling or dimension built in; the weights can do both
    build = backend if backend in ("onnx-fp32", "onnx-int8") else None
    graph = artifact.onnx_build(folder, manifest, spec, build=build)
    if graph is None and backend != "auto":
        raise UsageError(
            f"{str(folder)!r} has no {build or 'ONNX'} build: `{_export(folder, build)}` makes one, beside the weights "
            "in a folder of its own, which is given instead; or use backend='auto'"
        )
    return graph


def _export(folder: Path, build: str | None) -> str:
    precision = " --precision int8" if build == "onnx-int8" else ""
    return f"embed-plus export {shlex.quote(str(folder))} --out FOLDER{precision}"


def _torch_can_run(folder: Path, spec: EncoderSpec) -> bool:
    return _has_torch() and bool(weight_files(folder / spec.transformer_path))


def _has_torch() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


_LARGEST_BUILT = 1_900_000_000
"""Bytes of weights that one graph in memory may have: protobuf ends at 2 GB."""


def _graph_can_be_built(folder: Path, spec: EncoderSpec) -> bool:
    """Whether `export.graph` knows this architecture; says nothing about what is installed."""
    from llama_index_embed_plus.export.weights import unsupported_reason

    inner = folder / spec.transformer_path
    files = weight_files(inner)
    fits = bool(files) and sum(file.stat().st_size for file in files) <= _LARGEST_BUILT
    return fits and unsupported_reason(read_json(inner, "config.json") or {}) is None


def _builds_graph(folder: Path, spec: EncoderSpec, backend: BackendName) -> bool:
    if backend != "auto" or _has_torch() or importlib.util.find_spec("onnx") is None:
        return False
    if not _graph_can_be_built(folder, spec):
        return False
    from llama_index_embed_plus.export import graph

    return graph.supports(folder, spec)


def _built(identity: Identity, device: str | None, runtime: Runtime) -> Backend:
    """Run the graph of the weights, built here and kept in memory."""
    from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend
    from llama_index_embed_plus.export.graph import build_graph

    folder, spec = identity.folder, identity.spec
    logger.info("%s: no torch here, so its graph is built; `embed-plus export` saves that at every start", folder)
    graph = build_graph(folder, spec).SerializeToString()
    return OnnxBackend(folder, folder, spec, build="onnx-fp32", device=device, runtime=runtime, graph=graph)


def _require_torch(identity: Identity) -> None:
    """Raise MissingExtraError, naming the lightest extra that opens this model, where there is no torch."""
    if _has_torch():
        return
    # with onnx, a graph would have been built if it could be
    light = importlib.util.find_spec("onnx") is None and _graph_can_be_built(identity.folder, identity.spec)
    way = "or give a folder that `embed-plus export` wrote"
    what = f"opening {identity.spec.name!r} without an ONNX build ({way})"
    raise MissingExtraError(what, extra="export" if light else "train")


def _adapter(folder: Path, space: str) -> QueryAdapter | None:
    path = folder / artifact.ADAPTER
    if not path.is_dir():
        return None
    adapter = QueryAdapter.load(path)
    if adapter.space != space:
        raise DamagedModelError(f"{path} was fitted in {adapter.space}, this model is {space}: fit it again")
    return adapter


_DESCRIBED = (
    *("model_type", "dimension", "max_tokens", "long_text", "pooling", "include_prompt", "head", "normalize"),
    *("query_prompt", "passage_prompt", "compared", "lowercase", "append_eos", "truncate_dim", "late"),
)
_BY_DEFAULT = "default of this project"


@dataclass(frozen=True)
class ModelFact:
    """One property of a model. `source`: a file of the folder, a published page, the caller, or a default."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class ModelDescription:
    """Everything that decides the vectors of a model, see `describe`."""

    folder: Path
    space: str
    build: str
    """The build that `open_encoder` would run."""
    spec: EncoderSpec
    facts: tuple[ModelFact, ...]
    builds: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The builds of an artifact, with the parity report of each."""
    source: Mapping[str, str] = field(default_factory=dict)
    """The `name` and `revision` on a hub of what it was made from; empty if nothing says so."""
    notes: tuple[str, ...] = ()
    """What a user should know besides the facts."""


def describe(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_folder: str | Path | None = None,
    overrides: Overrides | None = None,
) -> ModelDescription:
    """Describe what `open_encoder` with the same arguments would open. Raises the errors of `identify`."""
    identity = identify(model, revision=revision, cache_folder=cache_folder, overrides=overrides)
    folder, spec = identity.folder, identity.spec
    facts = tuple(ModelFact(name, getattr(spec, name), spec.sources.get(name, _BY_DEFAULT)) for name in _DESCRIBED)
    builds = artifact.read_manifest(folder).builds if artifact.is_artifact(folder) else {}
    source, notes = artifact.origin_of(folder), _notes(folder, spec)
    return ModelDescription(folder, identity.space, identity.build, spec, facts, builds, source, notes)


def _notes(folder: Path, spec: EncoderSpec) -> tuple[str, ...]:
    notes = [f"{name} is assumed" for name, source in spec.sources.items() if source.startswith("assumed")]
    if spec.normalize and spec.sources.get("normalize", "").startswith(FOR_DOT):
        notes.append("it was trained for the dot product; here the lengths of its vectors are left out")
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

"""A model's name or folder -> a TextEncoder. The door behind which torch and onnxruntime wait.

`identify` says what `open_encoder` would open, without importing either of them.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from llama_index_embed_plus import artifact, self_check
from llama_index_embed_plus.adapter import QueryAdapter
from llama_index_embed_plus.checkpoints import resolve
from llama_index_embed_plus.encoders.runtime import Runtime
from llama_index_embed_plus.encoders.text_encoder import Backend, TextEncoder
from llama_index_embed_plus.errors import DamagedModelError, ParityError, UsageError
from llama_index_embed_plus.spec import EncoderSpec, Overrides, read_spec, space_of
from llama_index_embed_plus.tensors import weight_files

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
    fault = self_check.fault(backend, found.folder)
    if fault is None:
        return backend
    fallback = artifact.onnx_build(found.folder, artifact.read_manifest(found.folder), found.spec, build="onnx-fp32")
    if runtime.on_mismatch == "error" or fallback is None or fallback.file == found.onnx_file:
        raise ParityError(f"{found.folder}: {fault}; use backend='torch', or export it again on this machine")
    logger.warning("%s: %s; the fp32 build is used instead", found.folder, fault)
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

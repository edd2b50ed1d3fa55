"""A model's name or folder -> a TextEncoder. The door behind which torch and onnxruntime wait.

`identify` says what `open_encoder` would open, without importing either of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from llama_index_embed_plus import artifact
from llama_index_embed_plus.adapter import QueryAdapter
from llama_index_embed_plus.checkpoints import resolve
from llama_index_embed_plus.encoders.text_encoder import Backend, TextEncoder
from llama_index_embed_plus.errors import DamagedModelError, UsageError
from llama_index_embed_plus.spec import EncoderSpec, Overrides, read_spec, space_of

__all__ = ["Identity", "TextEncoder", "identify", "open_encoder"]

BackendName = Literal["auto", "torch", "onnx"]


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
) -> Identity:
    """Say what `open_encoder` with the same arguments would open. Reads files, imports no heavy library."""
    if backend not in get_args(BackendName):
        raise UsageError(f"backend is {backend!r}, expected one of {', '.join(get_args(BackendName))}")
    folder = resolve(model, revision=revision, cache_folder=cache_folder)
    manifest = artifact.read_manifest(folder) if artifact.is_artifact(folder) else None
    spec = read_spec(folder, overrides)
    space = space_of(folder, spec)
    if manifest is not None and spec == manifest.spec and manifest.space != space:
        raise DamagedModelError(
            f"{folder} was sealed as {manifest.space} but holds {space}: a file was exchanged; export again"
        )
    graph = artifact.onnx_build(folder, manifest, spec) if backend != "torch" else None
    if backend == "onnx" and graph is None:
        raise UsageError(
            f"{str(folder)!r} has no ONNX build; make one with `embed-plus export`, or use backend='torch'"
        )
    if backend == "auto" and manifest is None:
        graph = None
    adapter = QueryAdapter.load(folder / artifact.ADAPTER) if (folder / artifact.ADAPTER).is_dir() else None
    if adapter is not None and adapter.space != space:
        raise DamagedModelError(
            f"{folder / artifact.ADAPTER} was fitted in {adapter.space}, this model is {space}: fit it again"
        )
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
) -> TextEncoder:
    """Open a hub name, a model folder or an artifact as its authors meant it.

    backend: `auto` takes the ONNX build of an artifact that has one, else torch.
    device: for torch, such as "cpu" or "cuda:0"; None: a GPU if there is one. ONNX builds run on the CPU.
    Raises ModelNotFoundError, DamagedModelError, UsageError, MissingExtraError.
    """
    found = identify(model, backend=backend, revision=revision, cache_folder=cache_folder, overrides=overrides)
    return TextEncoder(found.spec, found.space, found.folder, _backend(found, device), adapter=found.adapter)


def _backend(found: Identity, device: str | None) -> Backend:
    if found.onnx_file is not None:
        if device not in (None, "cpu"):
            raise UsageError(f"device {device!r} was asked for, the ONNX build runs on 'cpu'; use backend='torch'")
        from llama_index_embed_plus.encoders.onnx_encoder import OnnxBackend

        return OnnxBackend(found.onnx_file, found.folder, found.spec)
    from llama_index_embed_plus.encoders.torch_encoder import TorchBackend

    return TorchBackend(found.folder, found.spec, device=device)

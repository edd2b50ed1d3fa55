"""What an encoder is, apart from its numbers: pooling, prompts, normalisation, length, dimension; and its identity.

`read_spec` turns a model folder into an EncoderSpec; `space_of` turns folder and spec into the name of the vector
space. Two folders have the same space exactly if the same text gets the same vector from both (up to rounding): equal
weights, tokenizer, pooling, layers on top, normalisation, prompts, truncation and dimension. File formats, file names
and the folder's name do not count.
Guarantees: every fact carries the file or rule it comes from. No heavy import.
Does not know: how vectors are computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models import config as facts_of
from llama_index_embed_plus.models import files
from llama_index_embed_plus.models import files as lora_files
from llama_index_embed_plus.models.pooling import POOLING_MODES, HeadStep
from llama_index_embed_plus.models.weights import hash_weights, weight_files
from qdrant_tools.errors import UsageError

LongText = Literal["truncate", "mean", "error"]
"""A text beyond `max_tokens`: cut off, averaged over overlapping windows, or refused."""


@dataclass(frozen=True)
class EncoderSpec:
    """How texts become vectors. Everything here but `name`, `model_type` and `sources` is part of the space."""

    name: str
    model_type: str
    dimension: int
    max_tokens: int
    """Longest token sequence the model is given, special tokens included."""
    pooling: tuple[str, ...] = ("mean",)
    """One mode, or several whose vectors are joined."""
    include_prompt: bool = True
    """False: the prompt's tokens are attended to, but left out of the pooling."""
    head: tuple[HeadStep, ...] = ()
    """Layers between pooling and the final normalisation."""
    normalize: bool = True
    query_prompt: str = ""
    passage_prompt: str = ""
    lowercase: bool = False
    """True: lower-cased before the tokenizer sees it, because a file of the model says so."""
    append_eos: bool = False
    """True: the closing token is added even if the tokenizer's own files do not add one."""
    long_text: LongText = "truncate"
    truncate_dim: int | None = None
    """Keep only the first components (Matryoshka); the vector is brought back to unit length."""
    transformer_path: str = ""
    """Folder of config, weights and tokenizer inside the model folder."""
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Field -> the file or rule its value comes from."""

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise UsageError(f"{name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
        unknown = [mode for mode in self.pooling if mode not in POOLING_MODES]
        if unknown or not self.pooling:
            raise UsageError(f"pooling is {self.pooling!r}, expected some of {', '.join(POOLING_MODES)}")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}, expected at least 1")
        if self.long_text not in get_args(LongText):
            raise UsageError(f"long_text is {self.long_text!r}, expected one of {', '.join(get_args(LongText))}")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` gives an equal spec back."""
        return {**asdict(self), "pooling": list(self.pooling), "sources": dict(self.sources)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EncoderSpec:
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(row) - known):
            raise DamagedModelError(f"the spec has unknown fields {unknown}; it was written by a newer version")
        try:
            head = tuple(HeadStep(**step) for step in row.get("head", ()))
            return cls(**{**row, "pooling": tuple(row["pooling"]), "head": head})
        except (KeyError, TypeError, UsageError) as error:
            raise DamagedModelError(f"the spec cannot be read ({error}); write the artifact again") from error


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "model_type", "query_prompt", "passage_prompt", "transformer_path", "long_text"), str),
    **dict.fromkeys(("include_prompt", "normalize", "lowercase", "append_eos"), bool),
    "dimension": int,
    "max_tokens": int,
    "truncate_dim": int | None,
    "pooling": tuple,
    "sources": Mapping,
}


@dataclass(frozen=True)
class Overrides:
    """What a caller wants otherwise than the model's files say. None: as the files say. Each changes the space."""

    pooling: str | tuple[str, ...] | None = None
    include_prompt: bool | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    normalize: bool | None = None
    max_tokens: int | None = None
    long_text: LongText | None = None
    truncate_dim: int | None = None


def read_spec(folder: Path, overrides: Overrides | None = None) -> EncoderSpec:
    """Read the spec of a model folder: our artifact, a sentence-transformers folder, or a plain transformers folder.

    Raises DamagedModelError naming a missing or contradicting file, NotSupportedError naming a module that this
    project does not compute, UsageError for an override that cannot be honoured.
    """
    manifest = files.read_json(folder, files.MANIFEST)
    if manifest is not None:
        spec = EncoderSpec.from_dict(manifest.get("spec") or {})
    else:
        facts = facts_of.read_facts(folder)
        values = {name: value for name, (value, _) in facts.items()}
        spec = EncoderSpec(**values, sources={name: source for name, (_, source) in facts.items()})
    return _override(folder, spec, overrides or Overrides())


def space_of(folder: Path, spec: EncoderSpec, *, weights: str | None = None) -> str:
    """Identity of the vector space of `folder` read as `spec` says: `name@12hex`.

    The part before @ is for people and follows from the same contents as the hash.
    weights: what `weights_of` gave earlier, where the weights are not there or need not be read again.
    """
    inner = folder / spec.transformer_path
    identity = {
        "weights": weights or weights_of(folder, spec),
        "head": [asdict(replace(step, path="")) for step in spec.head],
        "tokenizer": tokenizer_hash(inner),
        "config": facts_of.shape_of(inner),
        "pooling": list(spec.pooling),
        **{name: getattr(spec, name) for name in ("include_prompt", "normalize", "query_prompt", "passage_prompt")},
        **{name: getattr(spec, name) for name in ("lowercase", "append_eos", "max_tokens", "long_text", "dimension")},
    }
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return f"{spec.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _override(folder: Path, spec: EncoderSpec, wanted: Overrides) -> EncoderSpec:
    changed = {name: value for name, value in asdict(wanted).items() if value is not None}
    if isinstance(changed.get("pooling"), str):
        changed["pooling"] = (changed["pooling"],)
    # Joining other poolings changes the width, which a layer on top could not take.
    before = spec.dimension
    if "pooling" in changed and len(changed["pooling"]) != len(spec.pooling):
        if spec.head:
            raise UsageError(
                f"pooling {changed['pooling']} does not fit this model's layers, which expect {spec.pooling}"
            )
        before = spec.dimension // len(spec.pooling) * len(changed["pooling"])
    cut = changed.get("truncate_dim")
    if cut is not None and not 1 <= cut <= before:
        raise UsageError(f"truncate_dim is {cut}, expected 1 to {before}, this model's dimension")
    positions = facts_of.positions_of(folder / spec.transformer_path)
    if changed.get("max_tokens", 0) > positions:
        raise UsageError(f"max_tokens is {changed['max_tokens']}, this model has {positions} positions")
    sources = {**spec.sources, **dict.fromkeys(changed, "asked for by the caller")}
    return replace(spec, **changed, dimension=cut or before, sources=sources)


def weights_of(folder: Path, spec: EncoderSpec) -> str:
    """Hash of all weights: the transformer's and those of the layers on top. Of an ONNX folder: of its graph file."""
    inner = folder / spec.transformer_path
    found = weight_files(inner)
    if not found and lora_files.is_kept_apart(inner):
        return lora_files.weights_of_both(inner)
    if not found:
        onnx = next((path for path in files.onnx_files(folder)), None)
        if onnx is None:
            raise DamagedModelError(f"{inner / 'model.safetensors'} is missing; only safetensors weights are read")
        with onnx.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    # Without layers on top the hash is that of the weights alone, by which `families` knows published checkpoints.
    parts = [hash_weights(found), *(hash_weights(weight_files(folder / step.path)) for step in spec.head if step.path)]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def tokenizer_hash(inner: Path) -> str:
    """Hash of what the tokenizer does. Truncation and padding are left out: this project sets its own."""
    settings = files.read_json(inner, "tokenizer_config.json") or {}
    flags = {key: True for key in ("add_bos_token", "add_eos_token") if settings.get(key) is True}
    if settings.get("truncation_side") == "left":
        flags["truncation_side"] = True
    tokenizer = files.read_json(inner, "tokenizer.json")
    if tokenizer is None:
        vocabulary = files.require_text(inner, "vocab.txt")
        kept: dict[str, Any] = {"vocab.txt": vocabulary, "lowercase": settings.get("do_lower_case", True)}
    else:
        ours = ("truncation", "padding", "version")
        kept = {key: value for key, value in tokenizer.items() if key not in ours and value is not None}
    return hashlib.sha256(json.dumps([kept, flags], sort_keys=True).encode()).hexdigest()

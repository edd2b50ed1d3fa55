"""A model folder -> `EncoderSpec`, which says how texts become vectors; and the name of its vector space.

The spec holds pooling, prompts, normalisation, length and dimension. Two folders have the same space exactly if a text
gets the same vector from both, up to rounding: equal weights, tokenizer, pooling, layers on top, normalisation,
prompts, truncation and dimension. File formats and names do not count.

Guarantees: every value carries the file or rule it comes from. Does not know: how vectors are computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models import files
from llama_index_embed_plus.models.config import MOST_TOKENS, architecture_of, positions_of, read_config
from llama_index_embed_plus.models.families import ANY
from llama_index_embed_plus.models.framing import as_published
from llama_index_embed_plus.models.lora import hash_lora
from llama_index_embed_plus.models.pooling import ACTIVATIONS, POOLING_MODES, HeadKind, HeadStep
from llama_index_embed_plus.models.weights import hash_weights, weight_files
from qdrant_tools.errors import UsageError, first_line

LongText = Literal["truncate", "mean", "error"]
"""A text beyond `max_tokens` is cut off, averaged over overlapping windows, or refused."""


@dataclass(frozen=True)
class EncoderSpec:
    """How texts become vectors. All fields but `name`, `model_type`, `compared` and `sources` are part of the space."""

    name: str
    model_type: str
    dimension: int
    max_tokens: int
    """Longest token sequence the model is given, special tokens included."""
    pooling: tuple[str, ...] = ("mean",)
    """One mode, or several whose vectors are concatenated."""
    include_prompt: bool = True
    """False: the prompt is read with the text, but its tokens are left out of the pooling."""
    head: tuple[HeadStep, ...] = ()
    """Layers between pooling and the final normalisation."""
    normalize: bool = True
    query_prompt: str = ""
    passage_prompt: str = ""
    compared: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Task (or `families.ANY`) -> the prompt of texts that are compared with their like. No task: as passages. It is no
    part of the space: no stored vector is made so."""
    lowercase: bool = False
    """True: texts are lower-cased before the tokenizer sees them, because a file of the model says so."""
    append_eos: bool = False
    """True: the closing token is added although the tokenizer's own files do not add one."""
    long_text: LongText = "truncate"
    truncate_dim: int | None = None
    """Keep only the first components (Matryoshka). The vector is scaled back to unit length."""
    late: bool = False
    """True: passages are pooled out of one pass over the document around them, see `encoders.late`."""
    transformer_path: str = ""
    """Folder of config, weights and tokenizer inside the model folder."""
    # not compared: one value from two sources makes the same vectors
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Field -> the file or rule its value comes from."""

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise UsageError(f"{name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
        unknown = [mode for mode in self.pooling if mode not in POOLING_MODES]
        if unknown or not self.pooling or len(self.pooling) > len(POOLING_MODES):
            raise UsageError(f"pooling is {str(self.pooling)[:200]}, expected some of {', '.join(POOLING_MODES)}")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}, expected at least 1")
        if self.long_text not in get_args(LongText):
            raise UsageError(f"long_text is {self.long_text!r}, expected one of {', '.join(get_args(LongText))}")

    def compared_prompt(self, task: str) -> str:
        """The prompt of texts that are compared with their like in `task`, such as `similarity`."""
        return self.compared.get(task, self.compared.get(ANY, self.passage_prompt))

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict. `from_dict` gives an equal spec back."""
        row = {**asdict(self), "pooling": list(self.pooling), "sources": dict(self.sources)}
        row["compared"] = dict(self.compared)
        for name in ("late", "compared"):
            if not row[name]:
                del row[name]  # unknown to earlier versions, which read everything else
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EncoderSpec:
        if unknown := sorted(set(row) - {field.name for field in fields(cls)}):
            raise DamagedModelError(f"the spec has unknown fields {unknown[:9]}; it was written by a newer version")
        try:
            head = tuple(HeadStep(**step) for step in row.get("head", ()))
            spec = cls(**{**row, "pooling": tuple(row["pooling"]), "head": head})
        except (KeyError, TypeError, UsageError) as error:
            said = first_line(error)
            raise DamagedModelError(f"the spec cannot be read ({said}); write the artifact again") from error
        _require_bounds(spec, "the manifest")
        return spec


def _require_bounds(spec: EncoderSpec, where: object) -> None:
    odd = next((what for what, fine in _bounds(spec) if not fine), None)
    if odd is not None:
        raise DamagedModelError(f"{where} describes an encoder with an odd {odd}; write the model again")


def _bounds(spec: EncoderSpec) -> Iterator[tuple[str, bool]]:
    """What a spec of a received folder must not ask for: no vector of 2**16 numbers can be stored or searched."""
    yield "dimension", 1 <= spec.dimension < 1 << 16 and 1 <= (spec.truncate_dim or 1) <= spec.dimension
    yield "max_tokens", spec.max_tokens <= MOST_TOKENS
    yield "name", len(spec.name) <= 200 and spec.name.isprintable()
    yield "sources", all(isinstance(text, str) for row in spec.sources.items() for text in row)
    yield "compared", all(isinstance(text, str) for row in spec.compared.items() for text in row)
    yield (
        "head",
        len(spec.head) <= 64
        and all(
            step.kind in get_args(HeadKind) and isinstance(step.path, str) and step.activation in ACTIVATIONS
            for step in spec.head
        ),
    )


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("name", "model_type", "query_prompt", "passage_prompt", "transformer_path", "long_text"), str),
    **dict.fromkeys(("include_prompt", "normalize", "lowercase", "append_eos", "late"), bool),
    "dimension": int,
    "max_tokens": int,
    "truncate_dim": int | None,
    "pooling": tuple,
    "sources": Mapping,
    "compared": Mapping,
}


@dataclass(frozen=True)
class Overrides:
    """What is to differ from the model's own files. None: as the files say. Each override changes the space."""

    pooling: str | tuple[str, ...] | None = None
    include_prompt: bool | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    normalize: bool | None = None
    max_tokens: int | None = None
    long_text: LongText | None = None
    truncate_dim: int | None = None
    late: bool | None = None


def read_spec(folder: Path, overrides: Overrides | None = None) -> EncoderSpec:
    """Read the spec of a model folder: our artifact, a sentence-transformers folder, or a plain transformers folder.

    Raises:
        DamagedModelError: A file is missing or contradicts another.
        NotSupportedError: The model asks for a module that this project does not compute.
        UsageError: An override cannot be honoured.
    """
    manifest = files.read_json(folder, files.MANIFEST)
    if manifest is not None:
        spec = EncoderSpec.from_dict(files.Settings(folder / files.MANIFEST, manifest).table("spec").values)
    else:
        config = read_config(folder)
        values = {name: value for name, (value, _) in config.items()}
        spec = EncoderSpec(**values, sources={name: source for name, (_, source) in config.items()})
        _require_bounds(spec, folder)
    return _override(folder, spec, overrides or Overrides())


def space_of(folder: Path, spec: EncoderSpec, *, weights: str | None = None) -> str:
    """Name the vector space of `folder` read as `spec` says: `name@12hex`.

    The part before @ is for people. It follows from the same contents as the hash.

    weights: What `weights_of` returned earlier, if the weights are not there or need not be read again.
    """
    inner = folder / spec.transformer_path
    identity = {
        "weights": weights or weights_of(folder, spec),
        # File names do not count, neither here nor anywhere below.
        "head": [asdict(replace(step, path="")) for step in spec.head],
        "tokenizer": tokenizer_hash(inner),
        "config": architecture_of(inner),
        "pooling": list(spec.pooling),
        **{name: getattr(spec, name) for name in ("include_prompt", "normalize", "query_prompt", "passage_prompt")},
        **{name: getattr(spec, name) for name in ("lowercase", "append_eos", "max_tokens", "long_text", "dimension")},
    }
    # Collections store this name: the text that is hashed must be the same on every machine and in every version.
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    space = f"{spec.name}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return late_space(space) if spec.late else space


_LATE = "late chunking 1"
"""Another number for other windows or another pooling of passages."""


def late_space(space: str) -> str:
    """The space of the same encoder with late chunking: `space` is that without."""
    return f"{space.rpartition('@')[0]}@{hashlib.sha256(f'{_LATE} {space}'.encode()).hexdigest()[:12]}"


def _override(folder: Path, spec: EncoderSpec, overrides: Overrides) -> EncoderSpec:
    changed = {name: value for name, value in asdict(overrides).items() if value is not None}
    if isinstance(changed.get("pooling"), str):
        changed["pooling"] = (changed["pooling"],)
    # Another number of poolings changes the width of the pooled vector, which a layer on top could not take.
    width = spec.dimension
    if "pooling" in changed and len(changed["pooling"]) != len(spec.pooling):
        if spec.head:
            raise UsageError(
                f"pooling {changed['pooling']} does not fit this model's layers, which expect {spec.pooling}"
            )
        width = spec.dimension // len(spec.pooling) * len(changed["pooling"])
    cut = changed.get("truncate_dim")
    if cut is not None and not 1 <= cut <= width:
        raise UsageError(f"truncate_dim is {cut}, expected 1 to {width}, this model's dimension")
    positions = positions_of(folder / spec.transformer_path)
    if changed.get("max_tokens", 0) > positions:
        raise UsageError(f"max_tokens is {changed['max_tokens']}, this model has {positions} positions")
    sources = {**spec.sources, **dict.fromkeys(changed, "asked for by the caller")}
    return replace(spec, **changed, dimension=cut or width, sources=sources)


def weights_of(folder: Path, spec: EncoderSpec, *, ours: bool = False) -> str:
    """Return the hash of all weights: of transformer and layers on top, or else of the ONNX file.

    ours: The folder was written by this process, see `lora.lora_base`.
    """
    inner = folder / spec.transformer_path
    transformer = weight_files(inner)
    if not transformer and files.has_lora(inner):
        return hash_lora(inner, ours=ours)
    if not transformer:
        onnx = next(files.onnx_files(folder), None)
        if onnx is None:
            raise DamagedModelError(f"{inner / 'model.safetensors'} is missing; only safetensors weights are read")
        with onnx.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    # Without layers on top this is the hash by which `families` knows published checkpoints.
    parts = [
        hash_weights(transformer),
        *(hash_weights(weight_files(folder / step.path)) for step in spec.head if step.path),
    ]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def tokenizer_hash(inner: Path) -> str:
    """Return the hash of what the tokenizer does. Truncation and padding are left out: this project sets its own."""
    settings = files.read_json(inner, "tokenizer_config.json") or {}
    # a flag that is false and one that is missing read alike, so they hash alike
    flags = {key: True for key in ("add_bos_token", "add_eos_token") if settings.get(key) is True}
    if settings.get("truncation_side") == "left":
        flags["truncation_side"] = True
    tokenizer = files.read_json(inner, "tokenizer.json")
    if tokenizer is None:
        vocabulary = files.require_text(inner, "vocab.txt")
        content: dict[str, Any] = {"vocab.txt": vocabulary, "lowercase": settings.get("do_lower_case", True)}
    else:
        left_out = ("truncation", "padding", "version")
        processor, added = as_published(tokenizer)
        flags |= dict.fromkeys(added - {"append_eos"}, True)
        content = {**tokenizer, "post_processor": processor}
        content = {key: value for key, value in content.items() if key not in left_out and value is not None}
    return hashlib.sha256(json.dumps([content, flags], sort_keys=True).encode()).hexdigest()

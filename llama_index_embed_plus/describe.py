"""A model -> everything that decides its vectors, each fact with the file or rule it comes from.

Guarantees: nothing is computed and no heavy library is imported; what is assumed says so.
Does not know: how to print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_index_embed_plus import artifact
from llama_index_embed_plus.encoders import identify
from llama_index_embed_plus.families import family_of
from llama_index_embed_plus.model_files import read_json
from llama_index_embed_plus.spec import EncoderSpec, Overrides

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

"""An EncoderSpec -> the sentence-transformers files that say the same, so that every other tool reads it too.

Needed where a spec does not come from the folder's files alone: facts from `families`, a caller's overrides, a plain
transformers folder. The pooling config is written in a form that every reader knows: the booleans of old versions and
the single name of new ones. Guarantees: reading the folder back gives the spec; files that already say so are left
alone. Does not know: weights. sentence-transformers has no attention-weighted pooling and no windows over long texts:
it reads such a folder without them.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from llama_index_embed_plus.facts import LEGACY_POOLING, read_facts
from llama_index_embed_plus.model_files import inside, modules_of, read_json, write_json
from llama_index_embed_plus.pooling import ATTENTION
from llama_index_embed_plus.spec import EncoderSpec

logger = logging.getLogger(__name__)

_TYPE = "sentence_transformers.models."
"""Module types as every version of sentence-transformers since 2 understands them."""


def write_spec_files(folder: Path, spec: EncoderSpec) -> None:
    """Make the files of `folder` say what `spec` says."""
    _modules(folder, spec)
    stated = {name: value for name, (value, _) in read_facts(folder).items()}
    _pooling(folder, spec)
    _prompts(folder, spec, stated)
    inner = folder / spec.transformer_path
    if (spec.max_tokens, spec.lowercase) != (stated["max_tokens"], stated["lowercase"]):
        limits = {"max_seq_length": spec.max_tokens, "do_lower_case": spec.lowercase}
        _update(inner / "sentence_bert_config.json", limits)
    if spec.append_eos and not stated.get("append_eos"):
        _update(inner / "tokenizer_config.json", {"add_eos_token": True})
    if ATTENTION in spec.pooling or spec.long_text == "mean":
        logger.warning("%s: sentence-transformers reads this folder without attention pooling and windows", folder)


def _modules(folder: Path, spec: EncoderSpec) -> None:
    """modules.json: written if missing, and ending in Normalize if the vectors are normalised."""
    path = folder / "modules.json"
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    kinds = [kind for kind, _ in modules_of(folder)]
    # A plain transformers folder becomes one of sentence-transformers.
    if not rows:
        rows = [{"path": "", "type": _TYPE + "Transformer"}]
    if "Pooling" not in kinds:
        rows.insert(1, {"path": "1_Pooling", "type": _TYPE + "Pooling"})
    ends_normalised = kinds[-1] == "Normalize"
    if spec.normalize and not ends_normalised:
        rows.append({"path": f"{len(rows)}_Normalize", "type": _TYPE + "Normalize"})
    elif not spec.normalize and ends_normalised:
        rows.pop()
    numbered = [{"idx": i, "name": str(i), "path": row["path"], "type": row["type"]} for i, row in enumerate(rows)]
    if numbered != (json.loads(path.read_text("utf-8")) if path.is_file() else None):
        write_json(path, numbered)
    for kind, place in modules_of(folder):
        if kind == "Pooling":
            (inside(folder, place)).mkdir(exist_ok=True)
            if not (folder / place / "config.json").is_file():
                write_json(folder / place / "config.json", {"pooling_mode": "mean"})


def _pooling(folder: Path, spec: EncoderSpec) -> None:
    place = next(place for kind, place in modules_of(folder) if kind == "Pooling")
    path = folder / place / "config.json"
    saved = read_json(folder / place, "config.json") or {}
    modes = [mode for mode in spec.pooling if mode != ATTENTION] or ["mean"]
    config = read_json(folder / spec.transformer_path, "config.json") or {}
    width = saved.get("word_embedding_dimension", saved.get("embedding_dimension"))
    wanted = {
        "word_embedding_dimension": width or config.get("hidden_size") or config.get("d_model") or config.get("dim"),
        **{key: mode in modes for key, mode in LEGACY_POOLING.items()},
        "include_prompt": spec.include_prompt,
        "pooling_mode": modes[0] if len(modes) == 1 else modes,
    }
    if saved != wanted:
        write_json(path, wanted)


def _prompts(folder: Path, spec: EncoderSpec, stated: dict[str, Any]) -> None:
    wanted = {"query": spec.query_prompt, "document": spec.passage_prompt}
    changes: dict[str, Any] = {}
    if (spec.query_prompt, spec.passage_prompt) != (stated["query_prompt"], stated["passage_prompt"]):
        saved = read_json(folder, "config_sentence_transformers.json") or {}
        changes["prompts"] = {**(saved.get("prompts") or {}), **wanted}
    if spec.truncate_dim != stated.get("truncate_dim"):
        changes["truncate_dim"] = spec.truncate_dim
    if changes:
        _update(folder / "config_sentence_transformers.json", changes)


def _update(path: Path, changes: dict[str, Any]) -> None:
    write_json(path, {**(read_json(path.parent, path.name) or {}), **changes})

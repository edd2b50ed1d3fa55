"""An EncoderSpec -> the sentence-transformers files that say the same, so that every other tool can read the model.

This is needed if a spec does not come from the folder's files alone: values from `families`, a caller's overrides, a
plain transformers folder. The pooling config is written for every reader: the booleans of old versions of
sentence-transformers and the single name of new ones.

Guarantees: reading the folder back (`config`) gives the spec; files that already say so are left alone. Does not know:
weights. Attention pooling and windows over long texts are not part of sentence-transformers, which reads the folder
without them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from llama_index_embed_plus.models.config import LEGACY_POOLING, TASKS_BY_NAME, WIDTHS, read_config
from llama_index_embed_plus.models.files import inside, module_rows, modules_of, read_json, write_json
from llama_index_embed_plus.models.framing import frame_in_file
from llama_index_embed_plus.models.pooling import ATTENTION
from llama_index_embed_plus.models.spec import EncoderSpec

logger = logging.getLogger(__name__)

_MODULE_TYPE = "sentence_transformers.models."
"""Prefix of module types that every version of sentence-transformers since 2 understands."""


def write_config(folder: Path, spec: EncoderSpec) -> None:
    """Make the files of `folder` say what `spec` says."""
    _write_modules(folder, spec)
    stated = {name: value for name, (value, _) in read_config(folder).items()}
    _write_pooling(folder, spec)
    _write_prompts(folder, spec, stated)
    inner = folder / spec.transformer_path
    if (spec.max_tokens, spec.lowercase) != (stated["max_tokens"], stated["lowercase"]):
        limits = {"max_seq_length": spec.max_tokens, "do_lower_case": spec.lowercase}
        _update(inner / "sentence_bert_config.json", limits)
    # Only what the files do not say already is written: a file that another tool wrote stays as it is.
    frame_in_file(inner, append_eos=spec.append_eos)
    if ATTENTION in spec.pooling or spec.long_text == "mean":
        logger.warning("%s: sentence-transformers reads this folder without attention pooling and windows", folder)


def _write_modules(folder: Path, spec: EncoderSpec) -> None:
    """Write modules.json if it is missing. It ends in Normalize exactly if vectors are normalised."""
    path = folder / "modules.json"
    before = [{"path": name, "type": kind} for kind, name in module_rows(folder)] if path.is_file() else []
    rows = list(before)
    kinds = [kind for kind, _ in modules_of(folder)]
    if not rows:  # a plain transformers folder becomes one of sentence-transformers
        rows = [{"path": "", "type": _MODULE_TYPE + "Transformer"}]
    if "Pooling" not in kinds:
        rows.insert(1, {"path": "1_Pooling", "type": _MODULE_TYPE + "Pooling"})
    ends_normalised = kinds[-1] == "Normalize"
    if spec.normalize and not ends_normalised:
        rows.append({"path": f"{len(rows)}_Normalize", "type": _MODULE_TYPE + "Normalize"})
    elif not spec.normalize and ends_normalised:
        rows.pop()
    numbered = [{"idx": i, "name": str(i), "path": row["path"], "type": row["type"]} for i, row in enumerate(rows)]
    if rows != before:
        write_json(path, numbered)
    for kind, name in modules_of(folder):
        if kind == "Pooling":
            pooling = inside(folder, name)
            pooling.mkdir(parents=True, exist_ok=True)
            if not (pooling / "config.json").is_file():
                # for now: a Pooling without a config cannot be read; _write_pooling writes the mode
                write_json(pooling / "config.json", {"pooling_mode": "mean"})


def _write_pooling(folder: Path, spec: EncoderSpec) -> None:
    path = folder / next(name for kind, name in modules_of(folder) if kind == "Pooling") / "config.json"
    saved = read_json(path.parent, path.name) or {}
    # With uniform attention, attention pooling is the mean: the nearest that sentence-transformers can read.
    modes = [mode for mode in spec.pooling if mode != ATTENTION] or ["mean"]
    transformer = read_json(folder / spec.transformer_path, "config.json") or {}
    width = saved.get("word_embedding_dimension", saved.get("embedding_dimension"))
    config = {
        "word_embedding_dimension": width or next((transformer[key] for key in WIDTHS if transformer.get(key)), None),
        # the booleans are for old versions of sentence-transformers, `pooling_mode` for new ones
        **{key: mode in modes for key, mode in LEGACY_POOLING.items()},
        "include_prompt": spec.include_prompt,
        "pooling_mode": modes[0] if len(modes) == 1 else modes,
    }
    if saved != config:
        write_json(path, config)


def _write_prompts(folder: Path, spec: EncoderSpec, stated: dict[str, Any]) -> None:
    changes: dict[str, Any] = {}
    if (spec.query_prompt, spec.passage_prompt) != (stated["query_prompt"], stated["passage_prompt"]):
        saved = read_json(folder, "config_sentence_transformers.json") or {}
        # `document` is read before `passage` and `corpus`: a former prompt under these names does not count
        prompts = {"query": spec.query_prompt, "document": spec.passage_prompt}
        changes["prompts"] = {**(saved.get("prompts") or {}), **prompts}
    if dict(spec.compared) != dict(stated["compared"]):
        names = {task: name for name, task in TASKS_BY_NAME.items()}
        prompts = {names[task]: prompt for task, prompt in spec.compared.items() if task in names}
        saved = changes or read_json(folder, "config_sentence_transformers.json") or {}
        changes["prompts"] = {**(saved.get("prompts") or {}), **prompts}
    if spec.truncate_dim != stated.get("truncate_dim"):
        changes["truncate_dim"] = spec.truncate_dim
    if changes:
        _update(folder / "config_sentence_transformers.json", changes)


def _update(path: Path, changes: dict[str, Any]) -> None:
    write_json(path, {**(read_json(path.parent, path.name) or {}), **changes})

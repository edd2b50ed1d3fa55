"""The files of a model folder -> the facts of an EncoderSpec, each with the file it comes from.

Reads sentence-transformers folders of every age (modules.json, the pooling config as booleans or, since version 6, as
one name) and plain transformers folders; where files are silent, `families`. Guarantees: files that contradict each
other are DamagedModelError naming them; what is assumed says so in its source.
Does not know: how anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.families import KNOWN_WEIGHTS, Family, family_of
from llama_index_embed_plus.head import ACTIVATIONS, HeadStep
from llama_index_embed_plus.model_files import inside, modules_of, read_json, require_json
from llama_index_embed_plus.pooling import CLS, LAST, MAX, MEAN, MEAN_SQRT, POOLING_MODES, WEIGHTED
from llama_index_embed_plus.tensors import hash_weights, tensors_of, weight_files
from qdrant_tools.errors import NotSupportedError

Facts = dict[str, tuple[Any, str]]
"""Field of EncoderSpec -> (value, the file or rule that says so)."""

LEGACY_POOLING = {
    "pooling_mode_cls_token": CLS,
    "pooling_mode_max_tokens": MAX,
    "pooling_mode_mean_tokens": MEAN,
    "pooling_mode_mean_sqrt_len_tokens": MEAN_SQRT,
    "pooling_mode_weightedmean_tokens": WEIGHTED,
    "pooling_mode_lasttoken": LAST,
}
"""The booleans of sentence-transformers before 6, in the order in which several are joined."""

_ACTIVATIONS = {f"torch.nn.modules.activation.{name}": name.lower() for name in ("Tanh", "ReLU", "Sigmoid", "GELU")}
_ACTIVATIONS["torch.nn.modules.linear.Identity"] = "identity"
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
_POSITIONS_FROM_2 = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"}
"""Families that number positions from pad + 1: two of `max_position_embeddings` are never used."""
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
"""A text goes through the model as it is, and the last layer's states come out."""
_UNLIMITED = 1_000_000
"""Tokenizers write huge numbers for "no limit"."""


def read_facts(folder: Path) -> Facts:
    """Collect every field of EncoderSpec that the files of `folder` state or imply."""
    modules = modules_of(folder)
    transformer = _path_of(modules, "Transformer")
    inner = inside(folder, transformer)
    if (inner / "adapter_config.json").is_file():
        raise NotSupportedError(f"{inner} holds a LoRA adapter; merge it into its base model and save that")
    config = require_json(inner, "config.json")
    hidden = _hidden(inner, config)
    _check_reading(inner)
    _check_weights(inner, config, hidden)
    family = family_of(folder)
    facts: Facts = {
        "model_type": (str(config.get("model_type", "unknown")), "config.json"),
        "transformer_path": (transformer, "modules.json"),
        **_length(inner, config, family),
        **_prompts(folder, family),
        **_pooling(folder, modules, config, hidden=hidden, family=family),
    }
    if family is not None and family.appends_eos:
        facts["append_eos"] = (True, family.source)
    width = hidden * len(facts["pooling"][0])
    facts["head"], facts["normalize"], width = _head(folder, modules, width)
    facts["dimension"] = (width, "config.json" if not facts["head"][0] else "the last layer")
    truncate = (read_json(folder, "config_sentence_transformers.json") or {}).get("truncate_dim")
    if truncate:
        facts["truncate_dim"] = facts["dimension"] = (int(truncate), "config_sentence_transformers.json")
    facts["name"] = name_of(inner)
    return facts


def shape_of(inner: Path) -> dict[str, Any]:
    """What config.json adds to the weights, in a form that does not change when another version writes it again."""
    config = read_json(inner, "config.json") or {}
    rope = config.get("rope_parameters") or {}
    return {
        "model_type": config.get("model_type"),
        "heads": next((config[key] for key in ("num_attention_heads", "n_heads", "n_head") if key in config), None),
        "activation": next(
            (config[key] for key in ("hidden_act", "hidden_activation", "activation") if key in config), "gelu"
        ),
        "rope_theta": config.get("rope_theta", rope.get("rope_theta")),
    }


def _path_of(modules: list[tuple[str, str]], kind: str) -> str:
    return next((path for name, path in modules if name == kind), "")


def _pooling(
    folder: Path, modules: list[tuple[str, str]], config: Mapping[str, Any], *, hidden: int, family: Family | None
) -> Facts:
    include = (family.include_prompt, family.source) if family and family.include_prompt is not None else None
    if not any(kind == "Pooling" for kind, _ in modules):
        facts: Facts = {"include_prompt": include} if include else {}
        if family is not None and family.pooling is not None:
            return {"pooling": ((family.pooling,), family.source), **facts}
        causal = any(str(name).endswith("ForCausalLM") for name in config.get("architectures") or ())
        mode, why = (LAST, "a causal language model") if causal else (MEAN, "an encoder")
        source = f"assumed: no pooling config in the folder of {why}"
        return {"pooling": ((mode,), source), **facts}
    path = _path_of(modules, "Pooling")
    saved = require_json(inside(folder, path), "config.json")
    name = f"{path}/config.json"
    modes = saved.get("pooling_mode") or [m for key, m in LEGACY_POOLING.items() if saved.get(key)] or [MEAN]
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    if any(mode not in POOLING_MODES for mode in modes):
        raise DamagedModelError(
            f"{folder / name} asks for pooling {modes}, expected some of {', '.join(POOLING_MODES)}"
        )
    width = saved.get("embedding_dimension", saved.get("word_embedding_dimension", hidden))
    if width != hidden:
        raise DamagedModelError(
            f"{folder / name} states {width} dimensions, config.json {hidden}: one of them is wrong"
        )
    if "include_prompt" in saved or include is None:
        include = (bool(saved.get("include_prompt", True)), name)
    return {"pooling": (modes, name), "include_prompt": include}


def _head(folder: Path, modules: list[tuple[str, str]], width: int) -> tuple[tuple[Any, str], tuple[bool, str], int]:
    """The layers after pooling, whether the last one normalises, and the final width."""
    steps: list[HeadStep] = []
    for kind, path in modules:
        if kind == "Normalize":
            steps.append(HeadStep("normalize"))
        elif kind == "LayerNorm":
            steps.append(HeadStep("layer_norm", path))
        elif kind == "Dense":
            step, inputs, outputs = _dense(folder, path)
            if inputs != width:
                raise DamagedModelError(
                    f"{folder / path}/config.json takes {inputs} values, the layer before gives {width}"
                )
            steps.append(step)
            width = outputs
    source = "modules.json"
    if steps and steps[-1].kind == "normalize":
        return (tuple(steps[:-1]), source), (True, source), width
    return (tuple(steps), source), (True, "always: vectors are compared by their direction"), width


def _dense(folder: Path, path: str) -> tuple[HeadStep, int, int]:
    saved = require_json(inside(folder, path), "config.json")
    if saved.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise NotSupportedError(
            f"{folder / path}/config.json works on {saved['module_input_name']!r}, expected the pooled vector"
        )
    activation = _ACTIVATIONS.get(saved.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if activation not in ACTIVATIONS:
        raise NotSupportedError(
            f"{folder / path}/config.json asks for {saved['activation_function']!r}, "
            f"expected one of {', '.join(_ACTIVATIONS)}"
        )
    return (
        HeadStep("dense", path, activation, bool(saved.get("use_residual"))),
        saved["in_features"],
        saved["out_features"],
    )


def _prompts(folder: Path, family: Family | None) -> Facts:
    """The saved prompts; for a role that has none, the family's."""
    file = "config_sentence_transformers.json"
    prompts = (read_json(folder, file) or {}).get("prompts") or {}
    published = {"query_prompt": family.query_prompt, "passage_prompt": family.passage_prompt} if family else {}
    facts: Facts = {}
    # As sentence-transformers documents it: the first of these names that a model saved.
    for field, names in (("query_prompt", ("query",)), ("passage_prompt", ("document", "passage", "corpus"))):
        key = next((key for key in names if key in prompts), None)
        if key is not None:
            facts[field] = (prompts[key] or "", f"{file} ({key})")
        elif family is not None and published[field] is not None:
            facts[field] = (published[field], family.source)
        else:
            facts[field] = ("", "none: no file has one")
    return facts


def _length(inner: Path, config: Mapping[str, Any], family: Family | None) -> Facts:
    """Longest input: sentence_bert_config.json, else tokenizer_config.json; never more than there are positions."""
    bert = read_json(inner, "sentence_bert_config.json") or {}
    tokenizer = read_json(inner, "tokenizer_config.json") or {}
    positions = positions_of(inner)
    stated, source = bert.get("max_seq_length"), "sentence_bert_config.json"
    if not stated:
        stated, source = tokenizer.get("model_max_length"), "tokenizer_config.json"
    if family is not None and family.max_tokens and (not stated or stated >= _UNLIMITED):
        stated, source = family.max_tokens, family.source
    if not stated or stated > positions:
        stated, source = positions, "config.json (max_position_embeddings)"
    if stated >= _UNLIMITED:
        stated, source = 512, "assumed: no file states a longest input"
    return {
        "max_tokens": (int(stated), source),
        "lowercase": (bool(bert.get("do_lower_case", False)), "sentence_bert_config.json"),
    }


def _check_reading(inner: Path) -> None:
    """Refuse ways to read a text that sentence-transformers has since version 6 and this project has not."""
    saved = read_json(inner, "sentence_bert_config.json") or {}
    text = (saved.get("modality_config") or {}).get("text") or _PLAIN_TEXT
    unknown = [key for key in ("query_expansion", "query_length", "document_length") if saved.get(key) is not None]
    if saved.get("transformer_task", "feature-extraction") != "feature-extraction":
        unknown.append("transformer_task")
    if "message" in (saved.get("modality_config") or {}) or text != _PLAIN_TEXT:
        unknown.append("modality_config")
    if unknown:
        raise NotSupportedError(
            f"{inner / 'sentence_bert_config.json'} asks for {unknown[0]}={saved[unknown[0]]!r}, "
            "which is not computed here"
        )


def positions_of(inner: Path) -> int:
    """How many tokens the model has positions for."""
    config = read_json(inner, "config.json") or {}
    positions = config.get("max_position_embeddings") or config.get("n_positions") or 0
    if positions <= 0:  # XLNet writes -1
        return _UNLIMITED
    return positions - 2 if config.get("model_type") in _POSITIONS_FROM_2 else int(positions)


def _check_weights(inner: Path, config: Mapping[str, Any], hidden: int) -> None:
    """Find a config that belongs to other weights before a library fills the gap with random numbers."""
    for file in weight_files(inner):
        for name, tensor in tensors_of(file).items():
            if name.endswith("word_embeddings.weight") and len(tensor.shape) == 2:
                width = (
                    config.get("embedding_size", hidden)
                    if config.get("model_type") in ("electra", "albert")
                    else hidden
                )
                expected = (int(config.get("vocab_size", tensor.shape[0])), int(width))
                if tensor.shape != expected:
                    raise DamagedModelError(
                        f"{file} holds {tensor.shape} word embeddings, {inner / 'config.json'} states {expected}: "
                        "one of them belongs to another model"
                    )


def name_of(inner: Path) -> tuple[str, str]:
    """What people call the model, from the contents alone: as its weights are known, else its type and width."""
    found = weight_files(inner)
    known = KNOWN_WEIGHTS.get(hash_weights(found)) if found else None
    if known is not None:
        return known, "families (known weights)"
    config = read_json(inner, "config.json") or {}
    return f"{config.get('model_type', 'unknown')}-{_hidden(inner, config)}", "config.json"


def _hidden(inner: Path, config: Mapping[str, Any]) -> int:
    for key in _WIDTHS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise DamagedModelError(f"{inner / 'config.json'} states no width, expected one of {', '.join(_WIDTHS)}")

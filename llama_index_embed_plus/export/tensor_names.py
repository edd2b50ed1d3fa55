"""A model type of the BERT family -> where its checkpoints keep their tensors and its config keeps its facts.

Names are those of transformers' modelling files of the same model type.
Does not know: tensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError


@dataclass(frozen=True)
class Family:
    """Where one model type keeps its tensors; `{}` is the layer number."""

    prefix: str
    layer: str = "encoder.layer.{}."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    token_types: bool = True
    padded_positions: bool = False
    padding_id: int | None = None  # None: config.json says it
    relative: bool = False


_BERT = Family("bert.")
_ROBERTA = Family("roberta.", padded_positions=True)
FAMILIES: Mapping[str, Family] = {
    "bert": _BERT,
    "electra": replace(_BERT, prefix="electra."),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": Family(
        "mpnet.",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        token_types=False,
        padded_positions=True,
        padding_id=1,
        relative=True,
    ),
    "distilbert": Family(
        "distilbert.",
        layer="transformer.layer.{}.",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
        token_types=False,
    ),
}

# DistilBERT has names of its own for the same facts.
SYNONYMS = {
    "hidden_size": ("hidden_size", "dim"),
    "num_attention_heads": ("num_attention_heads", "n_heads"),
    "num_hidden_layers": ("num_hidden_layers", "n_layers"),
    "intermediate_size": ("intermediate_size", "hidden_dim"),
    "hidden_act": ("hidden_act", "activation"),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedModelError(f"{path} is missing; expected a transformers model folder") from error
    except (OSError, ValueError) as error:
        raise DamagedModelError(f"{path} cannot be read as JSON: {error}; fetch the model again") from error
    if not isinstance(config, dict):
        raise DamagedModelError(f"{path} holds {type(config).__name__}, expected a JSON object; fetch the model again")
    return config


def why_not(config: Mapping[str, Any]) -> str | None:
    """None if `read_weights` can read a model with this config, else the reason, fit for an error message."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        return f"model type {model_type!r} is not one of {', '.join(sorted(FAMILIES))}"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return f"position_embedding_type {config['position_embedding_type']!r} is not 'absolute'"
    if config.get("auto_map"):
        return "it comes with code of its own, which may compute something else"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it is a decoder"
    return None


def activation_name(config: Mapping[str, Any]) -> str:
    """transformers' name of the activation function; "" if the config does not say."""
    return str(next((config[key] for key in SYNONYMS["hidden_act"] if key in config), ""))

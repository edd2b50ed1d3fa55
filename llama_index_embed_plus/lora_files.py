"""A transformer folder that holds LoRA matrices and not the weights they belong to -> the folder that holds those.

The files are peft's (adapter_config.json, adapter_model.safetensors), as sentence-transformers reads them too.
Guarantees: a base that is not there, or an adapter that is not LoRA, is an error that says so. No heavy import.
Does not know: how the matrices are used.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from llama_index_embed_plus.checkpoints import resolve
from llama_index_embed_plus.errors import DamagedModelError, ModelNotFoundError
from llama_index_embed_plus.model_files import require_json
from llama_index_embed_plus.tensors import hash_weights, weight_files
from qdrant_tools.errors import NotSupportedError

CONFIG, MATRICES = "adapter_config.json", "adapter_model.safetensors"
_THAT_COUNT = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""What of the config decides the weights; the rest is how they were trained."""


def is_kept_apart(inner: Path) -> bool:
    """Whether `inner` holds matrices of a LoRA beside no weights."""
    return (inner / CONFIG).is_file()


def base_of(inner: Path) -> Path:
    """The transformer folder that the matrices in `inner` belong to. Raises ModelNotFoundError if it is not there."""
    config = require_json(inner, CONFIG)
    named = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA" or not isinstance(named, str) or not named:
        raise NotSupportedError(
            f"{inner / CONFIG} describes {config.get('peft_type')!r} on {named!r}, expected LORA on a named model; "
            "merge it into its base and save that"
        )
    if not (inner / MATRICES).is_file():
        raise DamagedModelError(f"{inner / MATRICES} is missing; copy the folder again")
    try:
        base = resolve(named)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{inner}: its LoRA belongs to {named!r}, which is not here: {error}") from error
    if not weight_files(base):
        raise DamagedModelError(f"{base} holds no model.safetensors, which the LoRA in {inner} belongs to")
    return base


def weights_of_both(inner: Path) -> str:
    """Hash of the base's weights, the matrices, and how they are added."""
    config = require_json(inner, CONFIG)
    counted = {name: config.get(name) for name in _THAT_COUNT}
    parts = [hash_weights(weight_files(base_of(inner))), hash_weights([inner / MATRICES])]
    return hashlib.sha256(json.dumps([*parts, counted], sort_keys=True).encode()).hexdigest()

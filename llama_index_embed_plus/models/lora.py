"""A folder of LoRA matrices -> the base model whose weights it lacks, how the matrices are added, and a hash of it all.

The folder (peft's adapter_config.json and adapter_model.safetensors) may come from somebody else. peft follows its
settings to modules, files and hubs; only those that say how matrices are added are passed on.

Guarantees: the base lies in the model's own folder, or its content is pinned by a commit or by our manifest. Does not
know: peft, torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError, ModelNotFoundError
from llama_index_embed_plus.models.files import LORA_CONFIG, LORA_MATRICES, MANIFEST, has_lora, inside, require_json
from llama_index_embed_plus.models.files import read_json as read_object
from llama_index_embed_plus.models.hub import COMMIT, PACKAGED, resolve
from llama_index_embed_plus.models.received import check_folder
from llama_index_embed_plus.models.weights import hash_weights, tensors_of, weight_files
from qdrant_tools.errors import NotSupportedError

_HASHED = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""The fields of adapter_config.json that decide the weights. The others say how they were trained."""
_PASSED_ON = (
    *(*_HASHED, "target_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"),
    *("bias", "lora_bias", "init_lora_weights"),
)
_LEFT_ASIDE = (
    *("base_model_name_or_path", "revision", "peft_type", "peft_version", "task_type", "inference_mode"),
    *("lora_dropout", "auto_mapping", "megatron_core", "qalora_group_size", "runtime_config"),
)
"""They say where an adapter comes from, or configure what is off unless another field turns it on."""
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal")
"""How matrices may have begun; the other ways also change the base's weights, by code of peft's."""
_PLAIN_NAME = re.compile(r"[\w.-]{1,200}")


def lora_settings(inner: Path) -> dict[str, Any]:
    """The fields of adapter_config.json that say how the matrices are added.

    Raises:
        NotSupportedError: a field asks for more than adding matrices.
        DamagedModelError: the file or a value is damaged.
    """
    path, config = inner / LORA_CONFIG, require_json(inner, LORA_CONFIG)
    unknown = [name for name, value in config.items() if value and name not in (*_PASSED_ON, *_LEFT_ASIDE)]
    if unknown or config.get("init_lora_weights") not in _PLAIN_STARTS:
        name = unknown[0] if unknown else "init_lora_weights"
        raise NotSupportedError(
            f"{path} asks for {name[:40]}={str(config[name])[:60]!r}, expected a plain LoRA; "
            "merge it into its base with peft and save that"
        )
    settings = {name: config[name] for name in _PASSED_ON if config.get(name) is not None}
    _check_names(path, settings)
    _check_ranks(inner, settings)
    return settings


def _check_names(path: Path, settings: dict[str, Any]) -> None:
    """Refuse names that are patterns: peft runs them as regular expressions, and some never end."""
    named = ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "rank_pattern", "alpha_pattern")
    for field in named:
        value = settings.get(field) or ()
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, (list, tuple, dict)) or not all(
            isinstance(name, str) and _PLAIN_NAME.fullmatch(name) for name in names
        ):
            raise DamagedModelError(f"{path}: {field} is {str(value)[:60]!r}, expected names of modules: list them")
    layers = settings.get("layers_to_transform", [])
    if not all(type(layer) is int for layer in (layers if isinstance(layers, list) else [layers])):
        raise DamagedModelError(f"{path}: layers_to_transform is {str(layers)[:60]!r}, expected numbers of layers")


def _check_ranks(inner: Path, settings: dict[str, Any]) -> None:
    """Refuse ranks beyond the matrices in the file: peft makes room for them before it reads it."""
    shapes = [tensor.shape for tensor in tensors_of(inner / LORA_MATRICES).values()]
    largest = max((size for shape in shapes for size in shape), default=0)
    patterns = [settings.get(name) or {} for name in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(pattern, dict) for pattern in patterns):
        raise DamagedModelError(f"{inner / LORA_CONFIG}: rank_pattern and alpha_pattern: expected objects")
    for rank in (settings.get("r", 8), *patterns[0].values()):
        if type(rank) is not int or not 1 <= rank <= largest:
            raise DamagedModelError(f"{inner / LORA_CONFIG}: rank {str(rank)[:40]}, expected 1 to {largest}")
    for alpha in (settings.get("lora_alpha", 8), *patterns[1].values()):
        if not isinstance(alpha, (int, float)) or not -1e9 < alpha < 1e9:
            raise DamagedModelError(f"{inner / LORA_CONFIG}: lora_alpha is {str(alpha)[:40]}, expected a number")


def lora_base(inner: Path, *, ours: bool = False) -> Path:
    """Return the transformer folder that the matrices in `inner` belong to.

    ours: The folder was written by this process, so its base is the one that was trained.

    Raises:
        ModelNotFoundError: The base is not on this machine.
        DamagedModelError: The matrices or the base's weights are missing, or the base is another than the manifest's.
        NotSupportedError: The adapter is not a LoRA of a named model, or nothing says which content that model has.
    """
    config = require_json(inner, LORA_CONFIG)
    name = config.get("base_model_name_or_path")
    if config.get("peft_type") != "LORA" or not isinstance(name, str) or not name:
        raise NotSupportedError(
            f"{inner / LORA_CONFIG} describes {str(config.get('peft_type'))[:40]!r} on {str(name)[:80]!r}, "
            "expected LORA on a named model; merge it into its base and save that"
        )
    if not (inner / LORA_MATRICES).is_file():
        raise DamagedModelError(f"{inner / LORA_MATRICES} is missing; copy the folder again")
    base, pinned = _found(inner, name, config.get("revision"), ours)
    if has_lora(base):
        raise NotSupportedError(f"{base}, which the LoRA in {inner} belongs to, has a LoRA itself; merge that")
    if not weight_files(base):
        raise DamagedModelError(f"{base} holds no model.safetensors, which the LoRA in {inner} belongs to")
    if not pinned and _hash(inner, base) != _recorded(inner):
        raise DamagedModelError(
            f"{base} is not the base that the LoRA in {inner} was written for: a file was exchanged; export it again"
        )
    return base


def _found(inner: Path, name: str, revision: object, ours: bool) -> tuple[Path, bool]:
    """The folder of the base, and whether its name alone says which content it has."""
    try:
        own = inside(inner, name)
    except DamagedModelError:
        own = None
    if own is not None and own != inner and own.is_dir():
        check_folder(own)
        return own, True
    commit = revision if isinstance(revision, str) and COMMIT.fullmatch(revision) else None
    packaged = not revision and name.rpartition("/")[2] in PACKAGED
    pinned = ours or (own is not None and (commit is not None or packaged))
    # a path on another machine would be asked for over the network
    if name.startswith(("\\", "//")) or not (pinned or _recorded(inner)):
        raise NotSupportedError(
            f"{inner / LORA_CONFIG} names the base {name[:80]!r}, expected a folder in this one, or a hub name with "
            "the commit of it as revision: add that, or merge the LoRA into its base with peft and save that"
        )
    try:
        return resolve(name, revision=commit), pinned
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{inner}: its LoRA belongs to {name[:80]!r}, which is not here: {error}") from error


def _recorded(inner: Path) -> str | None:
    """The hash that our manifest gives for the base with the matrices. None: there is no manifest."""
    for folder in (inner, inner.parent):
        manifest = read_object(folder, MANIFEST)
        if manifest is not None:
            weights = manifest.get("weights")
            return weights if isinstance(weights, str) else None
    return None


def hash_lora(inner: Path, *, ours: bool = False) -> str:
    """Return the hash of the base's weights, the matrices, and how they are added. `ours`: see `lora_base`."""
    return _hash(inner, lora_base(inner, ours=ours))


def _hash(inner: Path, base: Path) -> str:
    config = require_json(inner, LORA_CONFIG)
    fields = {name: config.get(name) for name in _HASHED}
    parts = [hash_weights(weight_files(base)), hash_weights([inner / LORA_MATRICES])]
    return hashlib.sha256(json.dumps([*parts, fields], sort_keys=True).encode()).hexdigest()

"""A model folder that somebody else made -> nothing, or the reason why it is not opened.

transformers, peft and sentence-transformers follow the settings of a folder: to code on a hub, to other files than
those that are checked here, to arguments of their own functions, and to memory for sizes that no weights have. What
leads there is refused before a library sees the folder.

Guarantees: no link leads out of the folder; no setting asks for code, a download or a pickle; no config asks for more
than its weights hold. Nothing is written, and no more is read than small files and the headers of weights. Does not
know: whether the files fit together (see `config`), what a user trusts.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.files import has_lora, inside, module_rows, read_json
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from qdrant_tools.errors import NotSupportedError
from qdrant_tools.files.trees import files_of

_SETTINGS = re.compile(
    r"(config|base_config|generation_config|tokenizer_config|(pre)?processor_config|router_config"
    r"|config_sentence_transformers|sentence_[\w-]+_config)\.json"
)
"""The files whose settings a library follows. LoRA's have rules of their own, see `lora`."""
_OF_EVERY_MODEL = ("config.json", "modules.json", "adapter_config.json", "embed_plus.json")
_LEADS_ELSEWHERE: Mapping[str, str] = {
    "quantization_config": "packed weights, which are not computed with here: save it in float16",
    **dict.fromkeys(("transformers_weights", "configuration_files"), "other files than those that are checked"),
    **dict.fromkeys(("fusion_config", "kernel_config", "use_kernels", "allow_all_kernels"), "code from a hub"),
    **dict.fromkeys(("backbone", "use_timm_backbone", "use_pretrained_backbone"), "a model from a hub"),
    **dict.fromkeys(("gguf_file", "distributed_config", "init_inputs"), "something that no encoder of texts has"),
}
"""Settings that make transformers fetch, run or read more than the folder's own weights."""
_NO_TEXT_MODELS = ("qwen2_5_omni", "rag", "timm_backbone", "timm_wrapper")
"""Their classes read pickles or ask a hub while they are made."""
_IMPLEMENTATION = re.compile(r"[A-Za-z_]\w{0,39}")
"""A name that transformers, or the code of a repository, has; code on a hub is `owner/name`."""
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation|linear)\.[A-Za-z]\w{0,60}")
_ACTIVATIONS = ("activation_fn", "activation_function", "sbert_ce_default_activation_function")
"""sentence-transformers calls what such a setting names."""
_ARGUMENTS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
_PLAIN_ARGUMENTS = (
    *("trust_remote_code", "dtype", "torch_dtype", "attn_implementation", "model_max_length", "padding_side"),
    *("truncation_side", "add_eos_token", "use_fast", "add_pooling_layer"),
)
"""Arguments of `from_pretrained` in a file of sentence-transformers that change nothing but numbers. Without trust it
leaves `trust_remote_code` aside."""
_NOT_SETTINGS = ("id2label", "label2id", "task_specific_params", "prompts")

_LAYERS = re.compile(r"(num_|n_)\w*layers?|n_layer|num_layers|depths?|num_blocks|n_blocks")
_MOST_LAYERS = 512
_MOST_TENSORS = 200_000
_MOST_PARTS = 1 << 14
"""Of anything else that a config counts. Some model types make each part one by one."""
_WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
_SIZES = (
    *_WIDTHS,
    *("embedding_size", "intermediate_size", "hidden_dim", "d_ff", "n_inner", "ffn_dim", "vocab_size"),
    *("type_vocab_size", "head_dim", "d_kv", "num_attention_heads", "n_heads", "n_head", "num_heads"),
    *("num_key_value_heads", "num_experts", "num_local_experts", "n_routed_experts"),
)
"""Sizes that some tensor has, or is a multiple of."""
_POSITIONS = ("max_position_embeddings", "n_positions")
_WITH_POSITIONS = (
    *("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra", "albert", "gpt2"),
    *("xlm-roberta-xl", "longformer", "ernie", "deberta"),
)
"""Model types that keep an embedding of each position, if they have positions at all."""
_MOST_IN_LIST = 1 << 20
"""Numbers in lists are widths, depths, repetitions and ids of tokens: some configs repeat a layer that often."""
_MOST: Mapping[str, int] = {
    **dict.fromkeys(_POSITIONS, 1 << 24),
    "num_labels": 100_000,
    "n_ctx": 1 << 24,
    "max_window_layers": 1 << 24,
}


def check_folder(folder: Path, *, trust_remote_code: bool = False) -> None:
    """Refuse a model folder that would lead a library out of it.

    Raises:
        DamagedModelError: a link leads out, a file is damaged, or a config asks for more than its weights hold.
        NotSupportedError: a setting asks for what is not done here.
    """
    # first of all: somebody who names a home folder should not wait until it has been walked through
    if not any(map(os.path.lexists, (folder / name for name in _OF_EVERY_MODEL))):
        raise DamagedModelError(f"{folder / 'config.json'} is missing; {str(folder)!r} is no complete model folder")
    files_of(folder, error=DamagedModelError)
    if trust_remote_code:
        return  # its own code may do anything
    places = dict.fromkeys([folder, *(inside(folder, path) for _, path in module_rows(folder))])
    for place in filter(Path.is_dir, places):
        for name in sorted(path.name for path in place.iterdir() if _SETTINGS.fullmatch(path.name)):
            _check_settings(place / name, read_json(place, name) or {})
        config = read_json(place, "config.json")
        files = weight_files(place)
        require_one_model(place)
        if config is not None and files:
            _check_sizes(place / "config.json", config, files)


def require_one_model(inner: Path) -> None:
    """Refuse weights with LoRA matrices beside them: are they in the weights? transformers would add them again."""
    if has_lora(inner) and weight_files(inner):
        raise NotSupportedError(f"{inner} holds a LoRA adapter; merge it into its base model and save that")


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    for table in _tables(settings):
        for key, value in table.items():
            if key in _LEADS_ELSEWHERE and value:
                raise NotSupportedError(f"{path} asks by {key} for {_LEADS_ELSEWHERE[key]}")
            if key == "model_type" and value in _NO_TEXT_MODELS:
                raise NotSupportedError(f"{path} describes a {value!r}, expected a model of texts")
            if "attn_implementation" in key or "experts_implementation" in key:
                _check_implementation(path, key, value)
            if key in _ACTIVATIONS and "." in str(value) and not _ACTIVATION.fullmatch(str(value)):
                raise NotSupportedError(f"{path} asks for the activation {str(value)[:80]!r}, expected one of torch.nn")
            if key in _ARGUMENTS:
                _check_arguments(path, key, value)


def _check_implementation(path: Path, key: str, value: Any) -> None:
    # `_attn_implementation_autoset` is a flag
    names = value.values() if isinstance(value, dict) else [value]
    unknown = [name for name in names if name is not None and not _IMPLEMENTATION.fullmatch(str(name))]
    if unknown:
        raise NotSupportedError(
            f"{path} asks by {key} for {str(unknown[0])[:80]!r}, which may be code from a hub; "
            "expected a plain name such as eager or sdpa: remove it"
        )


def _check_arguments(path: Path, key: str, value: Any) -> None:
    unknown = [name for name in value if name not in _PLAIN_ARGUMENTS] if isinstance(value, dict) else [str(value)]
    if value and unknown:
        raise NotSupportedError(
            f"{path} passes {unknown[0][:40]!r} to transformers by {key}, expected only {', '.join(_PLAIN_ARGUMENTS)}"
        )


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object in a JSON value that holds settings. Its depth is bounded by the reader."""
    if isinstance(value, dict):
        yield value
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        if key not in _NOT_SETTINGS and isinstance(part, (dict, list)):
            yield from _tables(part)


def _check_sizes(path: Path, config: Mapping[str, Any], files: list[Path]) -> None:
    """Refuse sizes beyond those of the weights: libraries make room for them before they look at the weights."""
    elements, largest, tensors = 0, 0, 0
    for file in files:
        found = tensors_of(file)
        tensors += len(found)
        if tensors > _MOST_TENSORS:
            raise DamagedModelError(f"{file}: with it these are more than {_MOST_TENSORS:,} tensors: this is no model")
        for tensor in found.values():
            # a tensor without elements may state any size
            if count := math.prod(tensor.shape):
                elements += count
                largest = max(largest, *tensor.shape, 1)
    for number in _in_lists(config):
        if not -_MOST_IN_LIST <= number <= _MOST_IN_LIST:
            raise DamagedModelError(f"{path} lists the number {str(number)[:40]}, which is no size: it is damaged")
    for table in _tables(config):
        sizes = {key: value for key, value in table.items() if type(value) in (int, float)}
        for key, value in sizes.items():
            most = _most(key, config.get("model_type"), largest)
            if most is not None and not -1 <= value <= most:
                raise DamagedModelError(
                    f"{path} states {key}={str(value)[:40]}, its weights have room for {most}: one of them is wrong"
                )
        width = min((sizes[key] for key in _WIDTHS if sizes.get(key)), default=0)
        tall = {"vocab_size": sizes.get("embedding_size") or width, "intermediate_size": width}
        for key, wide in tall.items():
            if sizes.get(key, 0) * wide > elements:
                raise DamagedModelError(
                    f"{path} states {key}={sizes[key]} by {wide}, its weights hold {elements} numbers: "
                    "one of them is wrong"
                )


def _in_lists(value: Any) -> Iterator[float]:
    """Yield the numbers that stand in lists, however deep."""
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            yield from _in_lists(part)
        elif isinstance(value, list) and type(part) in (int, float):
            yield part


def _most(key: str, model_type: Any, largest: int) -> int | None:
    if key in _MOST:
        return largest if key in _POSITIONS and model_type in _WITH_POSITIONS else _MOST[key]
    if _LAYERS.fullmatch(key):
        return _MOST_LAYERS
    if key in _SIZES:
        return largest
    return max(largest, _MOST_PARTS) if key.startswith(("num_", "n_")) else None

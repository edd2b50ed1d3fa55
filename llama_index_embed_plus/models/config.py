"""The files of a model folder -> the fields of an EncoderSpec, each with the file it comes from.

Reads sentence-transformers folders of every age (modules.json; the pooling config as booleans or, since version 6, as
one name) and plain transformers folders. Where the files say nothing, `families` may. `config_writer` is the way back.

Guarantees: files that contradict each other are DamagedModelError naming them; the source of an assumption says that it
is one. Does not know: how anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.families import ANY, KNOWN_WEIGHTS, Family, family_of
from llama_index_embed_plus.models.files import (
    Settings,
    inside,
    modules_of,
    read_json,
    require_json,
    settings_of,
)
from llama_index_embed_plus.models.pooling import CLS, LAST, MAX, MEAN, MEAN_SQRT, POOLING_MODES, WEIGHTED, HeadStep
from llama_index_embed_plus.models.received import require_one_model
from llama_index_embed_plus.models.weights import hash_weights, tensors_of, weight_files
from qdrant_tools.errors import NotSupportedError

SourcedFields = dict[str, tuple[Any, str]]
"""Field of EncoderSpec -> (value, the file or rule it comes from)."""

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
WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""Names of the width of the token states in config.json, by model type."""
_POSITIONS_FROM_2 = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "longformer"}
"""Families that number positions from pad + 1: two of `max_position_embeddings` are never used."""
_NARROW_WORDS = ("electra", "albert")
"""Families whose word embeddings are narrower than their layers."""
_PLAIN_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
"""A text goes through the model as it is, and the last layer's states come out."""
TASKS_BY_NAME = {
    "STS": "similarity",
    "PairClassification": "pair_classification",
    "Classification": "classification",
    "Clustering": "clustering",
    "BitextMining": "bitext_mining",
    "Summarization": "summarisation",
}
"""Names of mteb's tasks, under which models save prompts."""
_BY_DIRECTION = "always: vectors are compared by their direction"
FOR_DOT = "always here, and it was trained for the dot product of vectors of any length"
MOST_TOKENS = 1_000_000
"""Tokenizers write huge numbers for "no limit"."""


def read_config(folder: Path) -> SourcedFields:
    """Return every field of EncoderSpec that the files of `folder` state or imply."""
    modules = modules_of(folder)
    transformer = _path_of(modules, "Transformer")
    inner = inside(folder, transformer)
    require_one_model(inner)
    # settings_of alone would read a missing file as an empty one
    require_json(inner, "config.json")
    config = settings_of(inner, "config.json")
    hidden = _hidden(config)
    _check_reading(inner)
    _check_weights(inner, config, hidden)
    family = family_of(folder)
    fields: SourcedFields = {
        "model_type": (config.text("model_type") or "unknown", "config.json"),
        "transformer_path": (transformer, "modules.json"),
        **_length(inner, family),
        **_prompts(folder, family),
        **_pooling(folder, modules, config, hidden=hidden, family=family),
    }
    fields["compared"] = _compared(folder, family, fields)
    if family is not None and family.appends_eos:
        fields["append_eos"] = (True, family.source)
    # Joined poolings lie side by side.
    width = hidden * len(fields["pooling"][0])
    fields["head"], fields["normalize"], width = _head(folder, modules, width)
    if fields["normalize"][1] != "modules.json":
        fields["normalize"] = (True, _why_unit_length(folder, family))
    fields["dimension"] = (width, "config.json" if not fields["head"][0] else "the last layer")
    truncate = settings_of(folder, "config_sentence_transformers.json").integer("truncate_dim")
    if truncate:
        if not 1 <= truncate <= width:
            raise DamagedModelError(
                f"{folder}: truncate_dim is {truncate}, expected 1 to {width}, this model's dimension"
            )
        fields["truncate_dim"] = fields["dimension"] = (truncate, "config_sentence_transformers.json")
    fields["name"] = name_of(inner)
    return fields


def architecture_of(inner: Path) -> dict[str, Any]:
    """Return what config.json adds to the weights: the same, whichever version of transformers wrote the file."""
    config = read_json(inner, "config.json") or {}
    rope = settings_of(inner, "config.json").table("rope_parameters").values
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
    folder: Path, modules: list[tuple[str, str]], config: Settings, *, hidden: int, family: Family | None
) -> SourcedFields:
    include = (family.include_prompt, family.source) if family and family.include_prompt is not None else None
    if not any(kind == "Pooling" for kind, _ in modules):
        fields: SourcedFields = {"include_prompt": include} if include else {}
        if family is not None and family.pooling is not None:
            return {"pooling": ((family.pooling,), family.source), **fields}
        # sentence-transformers has the same rule for folders without a pooling config.
        causal = "ForCausalLM" in str(config.values.get("architectures"))
        mode, why = (LAST, "a causal language model") if causal else (MEAN, "an encoder")
        source = f"assumed: no pooling config in the folder of {why}"
        return {"pooling": ((mode,), source), **fields}
    path = _path_of(modules, "Pooling")
    require_json(inside(folder, path), "config.json")
    saved = settings_of(folder / path, "config.json")
    name = f"{path}/config.json"
    modes = saved.values.get("pooling_mode") or [m for key, m in LEGACY_POOLING.items() if saved.flag(key)] or [MEAN]
    modes = tuple(modes) if isinstance(modes, list) else (modes,)
    if any(mode not in POOLING_MODES for mode in modes):
        raise DamagedModelError(
            f"{folder / name} asks for pooling {modes}, expected some of {', '.join(POOLING_MODES)}"
        )
    width = saved.integer("embedding_dimension") or saved.integer("word_embedding_dimension")
    if width not in (None, hidden):
        raise DamagedModelError(
            f"{folder / name} states {width} dimensions, config.json {hidden}: one of them is wrong"
        )
    # the model's own file wins; one that does not say leaves what the family says
    if include is None or saved.flag("include_prompt") is not None:
        include = (saved.flag("include_prompt") is not False, name)
    return {"pooling": (modes, name), "include_prompt": include}


def _head(folder: Path, modules: list[tuple[str, str]], width: int) -> tuple[tuple[Any, str], tuple[bool, str], int]:
    """Return the layers after pooling, whether the last one normalises, and the final width."""
    steps: list[HeadStep] = []
    for kind, path in modules:
        if kind == "Normalize":
            steps.append(HeadStep("normalize"))
        elif kind == "LayerNorm":
            steps.append(HeadStep("layer_norm", path))
        elif kind == "Dense":
            step, inputs, outputs = _dense(inside(folder, path), path)
            if inputs != width:
                raise DamagedModelError(
                    f"{folder / path}/config.json takes {inputs} values, the layer before gives {width}"
                )
            steps.append(step)
            width = outputs
    source = "modules.json"
    # The last normalisation is a field of the spec, which a caller may switch off. One in between is a layer.
    if steps and steps[-1].kind == "normalize":
        return (tuple(steps[:-1]), source), (True, source), width
    return (tuple(steps), source), (True, _BY_DIRECTION), width


def _why_unit_length(folder: Path, family: Family | None) -> str:
    """Why vectors have unit length though no module says so; and whether the model was trained for something else."""
    saved = settings_of(folder, "config_sentence_transformers.json").values.get("similarity_fn_name")
    if family is not None and family.for_dot:
        return f"{FOR_DOT} ({family.source})"
    return f"{FOR_DOT} (config_sentence_transformers.json)" if saved in ("dot", "dot_score") else _BY_DIRECTION


def _dense(folder: Path, path: str) -> tuple[HeadStep, int, int]:
    require_json(folder, "config.json")
    saved = settings_of(folder, "config.json")
    if (saved.text("module_input_name") or "sentence_embedding") != "sentence_embedding":
        raise NotSupportedError(
            f"{saved.path} works on {saved.text('module_input_name')!r}, expected the pooled vector"
        )
    # tanh is the default of the Dense module of sentence-transformers
    activation = saved.text("activation_function") or "torch.nn.modules.activation.Tanh"
    if activation not in _ACTIVATIONS:
        raise NotSupportedError(f"{saved.path} asks for {activation!r}, expected one of {', '.join(_ACTIVATIONS)}")
    step = HeadStep("dense", path, _ACTIVATIONS[activation], bool(saved.flag("use_residual")))
    # The weights know their own shape; what the config says about it must agree.
    weight = next((tensors_of(file).get("linear.weight") for file in weight_files(folder)), None)
    if weight is None or len(weight.shape) != 2:
        raise DamagedModelError(f"{folder / 'model.safetensors'} holds no linear.weight; fetch it again")
    outputs, inputs = weight.shape
    if (saved.integer("in_features"), saved.integer("out_features")) != (inputs, outputs):
        raise DamagedModelError(
            f"{saved.path} states {saved.integer('in_features')} to {saved.integer('out_features')} values, "
            f"its weights map {inputs} to {outputs}"
        )
    return step, inputs, outputs


def _prompts(folder: Path, family: Family | None) -> SourcedFields:
    """Return the saved prompts. A role without one gets the family's."""
    file = "config_sentence_transformers.json"
    prompts = settings_of(folder, file).table("prompts")
    published = {"query_prompt": family.query_prompt, "passage_prompt": family.passage_prompt} if family else {}
    fields: SourcedFields = {}
    # sentence-transformers takes the first of these names that a model saved.
    for role, names in (("query_prompt", ("query",)), ("passage_prompt", ("document", "passage", "corpus"))):
        key = next((key for key in names if key in prompts.values), None)
        if key is not None:
            fields[role] = (prompts.text(key) or "", f"{file} ({key})")
        elif family is not None and published[role] is not None:
            fields[role] = (published[role], family.source)
        else:
            fields[role] = ("", "none: no file has one")
    return fields


def _compared(folder: Path, family: Family | None, fields: SourcedFields) -> tuple[Mapping[str, str], str]:
    """Return the prompts of texts that are compared with their like, by task: saved ones, the family's, or one role's.

    None of a task: the passage prompt, which most models do not have. A model that prompts both roles compares texts as
    queries, as E5's authors ask for.
    """
    file = "config_sentence_transformers.json"
    prompts = settings_of(folder, file).table("prompts")
    saved = {task: prompts.text(name) or "" for name, task in TASKS_BY_NAME.items() if name in prompts.values}
    if saved:
        return {**(family.compared if family else {}), **saved}, file
    if family is not None and family.compared:
        return family.compared, family.source
    queries, passages = fields["query_prompt"][0], fields["passage_prompt"][0]
    if passages and queries:
        return {ANY: queries}, "as queries: the model has a prompt for both roles"
    return {}, "as passages: no file and no card says more"


def _length(inner: Path, family: Family | None) -> SourcedFields:
    """Return the longest input that sentence_bert_config.json or else tokenizer_config.json states.

    It is never longer than the model has positions.
    """
    bert = settings_of(inner, "sentence_bert_config.json")
    positions = positions_of(inner)
    stated, source = bert.integer("max_seq_length"), "sentence_bert_config.json"
    if not stated:
        tokenizer = settings_of(inner, "tokenizer_config.json")
        stated, source = tokenizer.integer("model_max_length"), "tokenizer_config.json"
    if family is not None and family.max_tokens and (not stated or stated >= MOST_TOKENS):
        # a file that says "no limit" counts as silent
        stated, source = family.max_tokens, family.source
    # A longer text would index beyond the position embeddings.
    if not stated or stated > positions:
        stated, source = positions, "config.json (max_position_embeddings)"
    if stated >= MOST_TOKENS:
        stated, source = 512, "assumed: no file states a longest input"
    return {
        "max_tokens": (int(stated), source),
        "lowercase": (bool(bert.flag("do_lower_case")), "sentence_bert_config.json"),
    }


def _check_reading(inner: Path) -> None:
    """Refuse settings for reading a text that came with sentence-transformers 6 and are not computed here."""
    saved = settings_of(inner, "sentence_bert_config.json")
    modalities = saved.table("modality_config").values
    unknown = [key for key in ("query_expansion", "query_length", "document_length") if saved.values.get(key)]
    if (saved.text("transformer_task") or "feature-extraction") != "feature-extraction":
        unknown.append("transformer_task")
    if "message" in modalities or modalities.get("text", _PLAIN_TEXT) != _PLAIN_TEXT:
        unknown.append("modality_config")
    if unknown:
        raise NotSupportedError(
            f"{saved.path} asks for {unknown[0]}={saved.values[unknown[0]]!r}, which is not computed here"
        )


def positions_of(inner: Path) -> int:
    """Return the number of tokens that the model has positions for."""
    config = settings_of(inner, "config.json")
    positions = config.integer("max_position_embeddings") or config.integer("n_positions") or 0
    if positions <= 0:  # XLNet writes -1
        return MOST_TOKENS
    return positions - 2 if config.text("model_type") in _POSITIONS_FROM_2 else positions


def _check_weights(inner: Path, config: Settings, hidden: int) -> None:
    """Refuse a config that belongs to other weights, before a library fills the gap with random numbers."""
    for file in weight_files(inner):
        for name, tensor in tensors_of(file).items():
            if name.endswith("word_embeddings.weight") and len(tensor.shape) == 2:
                narrow = config.integer("embedding_size") if config.text("model_type") in _NARROW_WORDS else None
                expected = (config.integer("vocab_size") or tensor.shape[0], narrow or hidden)
                if tensor.shape != expected:
                    raise DamagedModelError(
                        f"{file} holds {tensor.shape} word embeddings, {inner / 'config.json'} states {expected}: "
                        "one of them belongs to another model"
                    )


def name_of(inner: Path) -> tuple[str, str]:
    """Return what people call the model, and why. It follows from the contents: known weights, or type and width."""
    files = weight_files(inner)
    name = KNOWN_WEIGHTS.get(hash_weights(files)) if files else None
    if name is not None:
        return name, "families (known weights)"
    config = settings_of(inner, "config.json")
    return f"{config.text('model_type') or 'unknown'}-{_hidden(config)}", "config.json"


def _hidden(config: Settings) -> int:
    width = next((config.integer(key) for key in WIDTHS if config.values.get(key) is not None), None)
    if width is None or width < 1:
        raise DamagedModelError(f"{config.path} states no width, expected one of {', '.join(WIDTHS)}")
    return width

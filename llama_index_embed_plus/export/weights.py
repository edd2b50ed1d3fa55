"""A checkpoint folder of the BERT family -> its weights as numpy arrays under one set of names.

BERT, RoBERTa, XLM-RoBERTa, CamemBERT, MPNet, DistilBERT and ELECTRA are the same network with other tensor names
(`TENSOR_NAMES`, from transformers' modelling files) and four differences: how positions are numbered, a relative
position bias (MPNet), a projection after the embeddings (ELECTRA), and the activation. In `EncoderWeights` only these
are left.

Guarantees: safetensors only, no pickle is read; float32; every tensor has the shape that the config states, or
DamagedModelError names it. Does not know: ONNX, pooling, quantisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import DamagedModelError, ModelError
from llama_index_embed_plus.models.files import require_json
from llama_index_embed_plus.models.weights import tensors_of, weight_files

Array = NDArray[np.float32]


@dataclass(frozen=True)
class TensorNames:
    """Where one model type keeps its tensors. `{}` is the layer number."""

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
    padding_id: int | None = None  # None: it is in config.json
    relative: bool = False


_BERT = TensorNames("bert.")
_ROBERTA = TensorNames("roberta.", padded_positions=True)
TENSOR_NAMES: Mapping[str, TensorNames] = {
    "bert": _BERT,
    "electra": replace(_BERT, prefix="electra."),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": TensorNames(
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
    "distilbert": TensorNames(
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

# DistilBERT has other keys for the same settings.
SYNONYMS = {
    "hidden_size": ("hidden_size", "dim"),
    "num_attention_heads": ("num_attention_heads", "n_heads"),
    "num_hidden_layers": ("num_hidden_layers", "n_layers"),
    "intermediate_size": ("intermediate_size", "hidden_dim"),
    "hidden_act": ("hidden_act", "activation"),
}


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias, weight [inputs, outputs]. No bias: None."""

    weight: Array
    bias: Array | None


@dataclass(frozen=True)
class Norm:
    """Layer normalisation over the last axis."""

    gain: Array
    shift: Array
    epsilon: float


@dataclass(frozen=True)
class Layer:
    """One post-norm transformer layer."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    up: Linear
    down: Linear
    output_norm: Norm


@dataclass(frozen=True)
class EncoderWeights:
    """The network behind one checkpoint.

    words [vocabulary, embedding size]; positions [maximum, embedding size], with the embedding of token type 0 added.
    padding_id: None numbers positions 0, 1, 2, ...; otherwise, as in RoBERTa, tokens that are not padding_id are
    numbered padding_id + 1, padding_id + 2, ... and padding has position padding_id.
    relative_bias [heads, 2 * maximum - 1]: added to the attention scores at distance key - query + maximum - 1.
    """

    words: Array
    positions: Array
    padding_id: int | None
    embedding_norm: Norm
    projection: Linear | None
    relative_bias: Array | None
    layers: tuple[Layer, ...]
    heads: int
    activation: str

    @property
    def hidden_size(self) -> int:
        return int(self.layers[0].query.weight.shape[0])


def read_weights(folder: Path) -> EncoderWeights:
    """Read the network in `folder`.

    Raises ModelError for another architecture, DamagedModelError for a missing, damaged or contradicting file.
    """
    config = require_json(folder, "config.json")
    reason = unsupported_reason(config)
    if reason is not None:
        raise ModelError(f"{folder}: {reason}; this model is exported by tracing it")
    return _Reader(folder, config).read()


class _Reader:
    """Reads one checkpoint: tensor names by model type, shapes by config."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, config
        self.names = TENSOR_NAMES[config["model_type"]]
        files = weight_files(folder)
        if not files:
            raise DamagedModelError(f"{folder / 'model.safetensors'} is missing; expected the weights as safetensors")
        self.tensors = {self._plain(name): tensor for file in files for name, tensor in tensors_of(file).items()}
        self.hidden, self.ffn = self._number("hidden_size"), self._number("intermediate_size")
        self.unread = set(self.tensors)
        # DistilBERT's config has none: 1e-12 is written in its code
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))

    def read(self) -> EncoderWeights:
        heads = self._number("num_attention_heads")
        if self.hidden % heads:
            raise DamagedModelError(f"{self.folder}: hidden_size {self.hidden} is not a multiple of {heads} heads")
        words = self._tensor("embeddings.word_embeddings.weight", None, None)
        width = words.shape[1]
        positions = self._tensor("embeddings.position_embeddings.weight", None, width)
        if self.names.token_types:
            positions = positions + self._tensor("embeddings.token_type_embeddings.weight", None, width)[0]
        layers = tuple(self._layer(number) for number in range(self._number("num_hidden_layers")))
        self._refuse_more_layers(len(layers))
        return EncoderWeights(
            words=words,
            positions=positions,
            padding_id=self._padding_id(),
            embedding_norm=self._norm("embeddings.LayerNorm", width),
            projection=None if width == self.hidden else self._linear("embeddings_project", width, self.hidden),
            relative_bias=self._relative_bias(heads, len(positions)) if self.names.relative else None,
            layers=layers,
            heads=heads,
            activation=str(self._value("hidden_act")),
        )

    def _refuse_more_layers(self, layers: int) -> None:
        # fewer layers than the weights have would run without an error and give other vectors
        stem = self.names.layer.partition("{}")[0]
        extra = sorted(name for name in self.unread if name.startswith(stem))
        if extra:
            raise DamagedModelError(
                f"{self.folder}: the weights hold {self.names.prefix}{extra[0]}, "
                f"which a {self.config['model_type']} of {layers} layers, as config.json states, does not have"
            )

    def _padding_id(self) -> int | None:
        if not self.names.padded_positions:
            return None
        # MPNet's code has the id inside, whatever config.json says
        return int(self.config.get("pad_token_id", 1)) if self.names.padding_id is None else self.names.padding_id

    def _layer(self, number: int) -> Layer:
        names, at, hidden = self.names, self.names.layer.format(number), self.hidden
        return Layer(
            query=self._linear(at + names.query, hidden, hidden),
            key=self._linear(at + names.key, hidden, hidden),
            value=self._linear(at + names.value, hidden, hidden),
            output=self._linear(at + names.output, hidden, hidden),
            attention_norm=self._norm(at + names.attention_norm, hidden),
            up=self._linear(at + names.up, hidden, self.ffn),
            down=self._linear(at + names.down, self.ffn, hidden),
            output_norm=self._norm(at + names.output_norm, hidden),
        )

    def _relative_bias(self, heads: int, maximum: int) -> Array:
        """Look up MPNet's buckets (those of T5, in both directions) once for every distance."""
        table = self._tensor("encoder.relative_attention_bias.weight", None, heads)
        distance = np.arange(-(maximum - 1), maximum)
        return np.ascontiguousarray(table[_bucket(distance, buckets=len(table))].T)

    def _linear(self, name: str, inputs: int, outputs: int) -> Linear:
        weight = self._tensor(name + ".weight", outputs, inputs)
        return Linear(np.ascontiguousarray(weight.T), self._tensor(name + ".bias", outputs))

    def _norm(self, name: str, size: int) -> Norm:
        return Norm(self._tensor(name + ".weight", size), self._tensor(name + ".bias", size), self.epsilon)

    def _tensor(self, name: str, *shape: int | None) -> Array:
        if name not in self.tensors:
            raise DamagedModelError(f"{self.folder}: the weights lack {self.names.prefix}{name}; fetch the model again")
        tensor = self.tensors[name].read()
        self.unread.discard(name)
        if len(tensor.shape) != len(shape) or any(
            size not in (None, actual) for size, actual in zip(shape, tensor.shape)
        ):
            expected = " x ".join("any" if size is None else str(size) for size in shape)
            raise DamagedModelError(
                f"{self.folder}: {self.names.prefix}{name} has shape {tensor.shape}, "
                f"config.json implies {expected}; fetch the model again"
            )
        return tensor

    def _plain(self, name: str) -> str:
        """Return the name without the model prefix, and with present names for gamma and beta of old BERT files."""
        name = name.removeprefix(self.names.prefix)
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def _value(self, key: str) -> Any:
        for synonym in SYNONYMS[key]:
            if synonym in self.config:
                return self.config[synonym]
        raise DamagedModelError(f"{self.folder}/config.json lacks {key!r}; fetch the model again")

    def _number(self, key: str) -> int:
        value = self._value(key)
        if not isinstance(value, int) or value < 1:
            raise DamagedModelError(f"{self.folder}/config.json: {key} is {value!r}, expected a positive number")
        return value


def _bucket(distance: NDArray[np.int64], *, buckets: int, maximum: int = 128) -> NDArray[np.int64]:
    """Return the bucket of a relative position key - query: half for each direction, logarithmic from a quarter on.

    Source: Raffel et al. 2020 (T5), section 2.1; MPNet (Song et al. 2020) uses 32 buckets up to distance 128.
    """
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    # In float32, as transformers computes it: rounding decides the bucket of some distances.
    # log(0) at distance 0 is replaced below, before it becomes an integer
    with np.errstate(divide="ignore"):
        steps = np.log(np.float32(far) / np.float32(exact)) / np.float32(np.log(maximum / exact)) * (half - exact)
    logarithmic = exact + np.where(far < exact, 0, steps).astype(np.int64)
    return np.where(distance > 0, half, 0) + np.where(far < exact, far, np.minimum(logarithmic, half - 1))


def unsupported_reason(config: Mapping[str, Any]) -> str | None:
    """Say, for an error message, why `read_weights` cannot read a model with this config. None: it can."""
    model_type = config.get("model_type")
    if model_type not in TENSOR_NAMES:
        return f"model type {model_type!r} is not one of {', '.join(sorted(TENSOR_NAMES))}"
    if config.get("position_embedding_type", "absolute") != "absolute":
        return f"position_embedding_type {config['position_embedding_type']!r} is not 'absolute'"
    if config.get("auto_map"):
        return "it comes with code of its own, which may compute something else"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "it is a decoder"
    return None


def activation_name(config: Mapping[str, Any]) -> str:
    """Return transformers' name of the activation function, "" if the config has none."""
    return str(next((config[key] for key in SYNONYMS["hidden_act"] if key in config), ""))

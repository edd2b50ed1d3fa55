"""Small real things for the tests of exported graphs: random models of every family, padded batches, sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers
from models import randomise

from llama_index_embed_plus.encoders.onnx_encoder import session_options

SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 160,
}
DISTILBERT_SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "dim": 48,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 80,
    "max_position_embeddings": 160,
}
CONFIGS: dict[str, Any] = {
    "bert": lambda **more: transformers.BertConfig(**SIZES | more),
    "roberta": lambda **more: transformers.RobertaConfig(**SIZES | more),
    "xlm-roberta": lambda **more: transformers.XLMRobertaConfig(**SIZES | more),
    "camembert": lambda **more: transformers.CamembertConfig(**SIZES | more),
    "mpnet": lambda **more: transformers.MPNetConfig(**SIZES | more),
    "electra": lambda **more: transformers.ElectraConfig(**SIZES | {"embedding_size": 32} | more),
    "distilbert": lambda **more: transformers.DistilBertConfig(**DISTILBERT_SIZES | more),
}


def random_model(config: Any, folder: Path, *, seed: int = 0) -> Any:
    """Save a model whose every parameter is random into `folder`."""
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    randomise(model)
    model.save_pretrained(folder)
    return model


def padded(rows: Sequence[Sequence[int]], *, padding_id: int = 0, length: int = 0) -> dict[str, np.ndarray]:
    """Token ids as one right-padded batch, at least `length` long."""
    width = max(length, *(len(row) for row in rows))
    ids = np.full((len(rows), width), padding_id, np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def random_rows(count: int, *, longest: int, vocabulary: int = 120, seed: int = 1) -> list[list[int]]:
    """Token sequences of 1 to `longest` words; ids below 5 are left to special tokens."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, count, endpoint=True)
    return [generator.integers(5, vocabulary, length).tolist() for length in lengths]


def open_session(model: Any, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Open `onnx.ModelProto` as it is to be opened for serving; a warning of onnxruntime is not hidden."""
    int8 = any("Integer" in node.op_type for node in model.graph.node)
    options = session_options(threads, int8=int8)
    options.log_severity_level = 2
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, batch: dict[str, np.ndarray], *, prompt_tokens: int = 0) -> np.ndarray:
    feed = dict(batch)
    if any(node.name == "prompt_tokens" for node in session.get_inputs()):
        feed["prompt_tokens"] = np.array(prompt_tokens, np.int64)
    vectors: np.ndarray = session.run(["embedding"], feed)[0]
    return vectors


def one_by_one(session: onnxruntime.InferenceSession, rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.concatenate([run(session, padded([row])) for row in rows])


def states_of(model: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Token states [texts, tokens, hidden] of a transformers model."""
    with torch.no_grad():
        out = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    states: np.ndarray = out.last_hidden_state.numpy()
    return states

"""The keyword arguments of `PlusEmbedding`, as editors and type checkers see them -> errors that name the right one.

Guarantees: a name that `PlusEmbedding` does not have is refused in one line, with the name that it has for the same
thing in the embeddings of others, or the nearest of its own. Does not know: what the fields do (`embedding`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypedDict

from llama_index_embed_plus.encoders.open import BackendName
from llama_index_embed_plus.encoders.text_encoder import OnMismatch
from llama_index_embed_plus.models.spec import LongText
from qdrant_tools.errors import UsageError, brief


class EmbeddingFields(TypedDict, total=False):
    """The fields of `PlusEmbedding`, all of which may be left out; each is described there."""

    model_name: str
    backend: BackendName
    device: str | None
    revision: str | None
    cache_folder: str | Path | None
    trust_remote_code: bool
    threads: int | None
    batch_tokens: int | None
    on_mismatch: OnMismatch
    vector_cache: str | Path | None
    num_workers: int | None
    pooling: str | tuple[str, ...] | None
    include_prompt: bool | None
    query_prompt: str | None
    passage_prompt: str | None
    normalize: bool | None
    max_tokens: int | None
    long_text: LongText | None
    truncate_dim: int | None
    late: bool | None
    space: str
    build: str
    dimension: int
    embed_batch_size: int
    embeddings_cache: Any
    rate_limiter: Any
    callback_manager: Any


ELSEWHERE = {
    "max_length": "it is max_tokens here",
    "max_seq_length": "it is max_tokens here",
    "query_instruction": "it is query_prompt here, written with the space that follows it",
    "text_instruction": "it is passage_prompt here, written with the space that follows it",
    "document_prompt": "it is passage_prompt here",
    "prompts": "they are query_prompt and passage_prompt here",
    "instruction": "it is query_prompt or passage_prompt here",
    "dimensions": "it is truncate_dim here",
    "dim": "it is truncate_dim here",
    "embed_dim": "it is truncate_dim here",
    "batch_size": "batches follow the lengths of the texts here: batch_tokens says how many tokens one may have",
    "cache_dir": "it is cache_folder here",
    "folder_name": "it is model here: a name or a folder",
    "tokenizer": "the tokenizer is the one in the model's folder",
    "tokenizer_name": "the tokenizer is the one in the model's folder",
    "parallel_process": "threads says how many cores an ONNX build may use",
    "target_devices": "device names one device",
    "parallel": "threads says how many cores an ONNX build may use",
    "providers": "backend and device choose what computes",
    "onnx_file_name": "backend chooses one of the model's builds",
    "show_progress_bar": "give show_progress to the index or the pipeline",
    "model_kwargs": "backend, device and the other fields say how the model is run",
    "model_revision": "it is revision here",
    "torch_dtype": "export a build with another precision: embed-plus export",
    "api_key": "models run in this process: there is no key",
    "api_base": "models run in this process: model is a name or a folder",
    "doc_embed_type": "passages get passage_prompt, if the model has one",
}
"""Names in LlamaIndex's other embeddings and in sentence-transformers -> what `PlusEmbedding` has for them."""


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise `UsageError` for names that are no fields, with the way to say each of them."""
    fields = set(known)
    said = [f"{brief(name)}: {_meant(name, fields)}" for name in given if name not in fields]
    if said:
        raise UsageError(f"PlusEmbedding has no field {'; no field '.join(said)}")


def _meant(name: str, fields: set[str]) -> str:
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    nearest = difflib.get_close_matches(name, sorted(fields), n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"its fields are {', '.join(sorted(fields))}"

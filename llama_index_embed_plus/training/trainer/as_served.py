"""A copy of a model folder -> the model of sentence-transformers in it, which reads texts as serving does.

Guarantees: the tokens of a text in training are those that the trained model will serve with; what cannot be read so is
NotSupportedError. Does not know: what is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sentence_transformers import SentenceTransformer

from llama_index_embed_plus.encoders.library_copy import opening
from llama_index_embed_plus.encoders.tokens import Tokenizer
from llama_index_embed_plus.models.files import read_json, write_json
from llama_index_embed_plus.models.framing import PROBES
from llama_index_embed_plus.models.pooling import ATTENTION
from llama_index_embed_plus.models.spec import EncoderSpec
from qdrant_tools.errors import NotSupportedError, UsageError, brief

_TEXTS = (
    *PROBES,
    "A line of Text,\n  and another:\tx1 = f(y2)  # it's 3.14!",
    "Über die Brücke, l'été, Поиск, 東京の天気",
    " around ",
)
"""Cases, accents, scripts, digits, spaces and lines: where tokenizers differ."""


def open_as_served(copy: Path, spec: EncoderSpec, *, named: Path, device: str) -> SentenceTransformer:
    """Open `copy`, a folder of ours, whose settings may be changed. named: what errors call it."""
    model = _opened(copy, spec, named=named, device=device)
    if not _reads_as_served(model, copy, spec):
        # classes for single families make a tokenizer anew, with rules that tokenizer.json may not have
        inner = copy / spec.transformer_path
        settings = read_json(inner, "tokenizer_config.json") or {}
        write_json(inner / "tokenizer_config.json", {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
        model = _opened(copy, spec, named=named, device=device)
        if not _reads_as_served(model, copy, spec):
            raise NotSupportedError(
                f"{named}: transformers makes other tokens of a text than its tokenizer.json, which serves: what is "
                "trained would not be what serves; save its tokenizer again with this version of transformers"
            )
    return model


def require_room(model: SentenceTransformer, prompts: Iterable[str]) -> None:
    """Refuse prompts that leave no token of a training text. Raises UsageError."""
    most = int(model.max_seq_length or 0)
    for prompt in prompts:
        tokens = len(model.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if most and tokens >= most - model.tokenizer.num_special_tokens_to_add():
            raise UsageError(
                f"the prompt {brief(prompt)} has {tokens} tokens and leaves none of a text: max_tokens of training is "
                f"{most}, give a larger one"
            )


def _opened(copy: Path, spec: EncoderSpec, *, named: Path, device: str) -> SentenceTransformer:
    with opening(named) as arguments:
        if ATTENTION in spec.pooling:  # the other implementations return none
            arguments["model_kwargs"]["attn_implementation"] = "eager"
        model = SentenceTransformer(str(copy), device=device, **arguments)
    tokenizer = model.tokenizer
    if tokenizer.pad_token is None:  # it is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    return model


def _reads_as_served(model: SentenceTransformer, copy: Path, spec: EncoderSpec) -> bool:
    tokenizer = Tokenizer(
        copy / spec.transformer_path,
        int(model.max_seq_length or spec.max_tokens),
        lowercase=spec.lowercase,
        append_eos=spec.append_eos,
    )
    read = model.preprocess(list(_TEXTS))
    theirs = [ids[mask.bool()].tolist() for ids, mask in zip(read["input_ids"], read["attention_mask"], strict=True)]
    return theirs == [ids.tolist() for ids in tokenizer.cut(_TEXTS).ids]

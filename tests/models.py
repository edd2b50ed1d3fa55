"""Small real models for the tests of encoders: random weights, a word tokenizer, saved by sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tiny_words import SENTENCE

VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *SENTENCE.split()])}

TEXTS = [
    "the cat sleeps under the tree .",
    "a dog",
    "what is the river ? what is the stone ? what is the bird ?",
    "red and blue birds over one river and two stones in the document of the search",
    "fast",
    "not all dog runs : slow slow slow slow slow slow slow slow slow slow",
]

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
CONFIGS: dict[str, Any] = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**SIZES),
    "mpnet": lambda: transformers.MPNetConfig(**SIZES | {"pad_token_id": 1}),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=66
    ),
    "electra": lambda: transformers.ElectraConfig(**SIZES | {"embedding_size": 16}),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SIZES, local_attention=8, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
    ),
    "nomic_bert": lambda: transformers.NomicBertConfig(**SIZES),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES, num_key_value_heads=2, eos_token_id=3),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, eos_token_id=3),
    "mistral": lambda: transformers.MistralConfig(**SIZES, num_key_value_heads=2, eos_token_id=3),
    "llama": lambda: transformers.LlamaConfig(**SIZES, num_key_value_heads=2, eos_token_id=3),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, n_positions=66, eos_token_id=3
    ),
    "gemma3_text": lambda: transformers.Gemma3TextConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, use_bidirectional_attention=True, sliding_window=8
    ),
    "t5": lambda: transformers.T5Config(
        vocab_size=len(VOCABULARY), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    ),
}
DECODERS = ("qwen2", "qwen3", "mistral", "llama", "gpt2")


def word_tokenizer(*, padding_side: str = "right", cls: bool = True) -> transformers.PreTrainedTokenizerFast:
    """One token per word, `[CLS] ... [SEP]` around a text; cls=False: only the closing token, as decoders do."""
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if cls else "$A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        padding_side=padding_side,
        model_max_length=24,
    )


def randomise(model: torch.nn.Module) -> None:
    """Make every parameter random: biases and norms too, which start as 0 and 1 and would hide errors."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0, 0.15)


def save_transformer(folder: Path, *, family: str = "bert", padding_side: str = "right", seed: int = 0) -> Path:
    """A plain transformers folder of `family` whose every parameter is random."""
    torch.manual_seed(seed)
    config = CONFIGS[family]()
    model = transformers.AutoModel.from_config(config).eval() if family != "t5" else transformers.T5EncoderModel(config)
    randomise(model)
    model.save_pretrained(folder)
    word_tokenizer(padding_side=padding_side, cls=family not in DECODERS).save_pretrained(folder)
    return folder


def save_cross_encoder(folder: Path, *, labels: int = 1) -> Path:
    """A real cross-encoder with random weights."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, num_labels=labels)
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def save_model(
    folder: Path,
    *,
    family: str = "bert",
    pooling: str | Sequence[str] = "mean",
    include_prompt: bool = True,
    prompts: Mapping[str, str] | None = None,
    padding_side: str = "right",
    extra: Sequence[Any] = (),
    seed: int = 0,
) -> SentenceTransformer:
    """Save a sentence-transformers folder and give back the model that sentence-transformers itself would use."""
    inner = save_transformer(
        folder.with_name(folder.name + "-transformer"), family=family, padding_side=padding_side, seed=seed
    )
    transformer = modules.Transformer(str(inner))
    parts = [modules.Pooling(32, pooling if isinstance(pooling, str) else tuple(pooling), include_prompt), *extra]
    model = SentenceTransformer(modules=[transformer, *parts], prompts=dict(prompts or {}), device="cpu")
    model.save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")

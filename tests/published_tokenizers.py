"""Folders whose tokenizer is built, and described, as those of published families are; trained on a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from models import SIZES, randomise
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers_of_all_kinds import SENTENCES

_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Published:
    """tokens: opening and closing ones of its tokenizer.json. serves: those that its card puts around a text."""

    build: Callable[[], Tokenizer]
    model: str
    settings: Mapping[str, Any]
    tokens: tuple[str, str] = ("", "")
    serves: tuple[str, str] = ("", "")
    pooling: str = "mean"
    config: Mapping[str, Any] = field(default_factory=dict)


def _trained(tokenizer: Tokenizer, trainer: Any) -> Tokenizer:
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _wordpiece(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(special)))


def _bert() -> Tokenizer:
    return _wordpiece("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _mpnet() -> Tokenizer:
    return _wordpiece("<s>", "<pad>", "</s>", "[UNK]", "<mask>")


def _unigram(*, split: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    words = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words]) if split else words
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return _trained(tokenizer, trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>"))


def _bytes(pre_tokenizer: Any, *special: str, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        tokenizer, trainers.BpeTrainer(vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet)
    )


def _roberta() -> Tokenizer:
    return _bytes(pre_tokenizers.ByteLevel(add_prefix_space=False), "<s>", "<pad>", "</s>", "<unk>", "<mask>")


def _qwen() -> Tokenizer:
    words = pre_tokenizers.Split(Regex(_QWEN_WORDS), behavior="isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Sequence([words, level])
    return _bytes(split, "<|endoftext|>", "<|im_start|>", "<|im_end|>", normalizer=normalizers.NFC())


def _gpt2() -> Tokenizer:
    return _bytes(pre_tokenizers.ByteLevel(add_prefix_space=False), "<|endoftext|>")


def _llama() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>", *pieces]
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=special, limit_alphabet=60))


def _gemma() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *pieces]
    return _trained(tokenizer, trainers.BpeTrainer(vocab_size=600, special_tokens=special, limit_alphabet=60))


_HEADS = {"num_key_value_heads": 2}
_XLMR = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "cls_token": "<s>"}
_XLMR = {**_XLMR, "sep_token": "</s>", "mask_token": "<mask>"}
_QWEN = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"}
_MISTRAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}

PUBLISHED: dict[str, Published] = {
    "bge, e5, MiniLM (bert)": Published(
        _bert, "bert", {"tokenizer_class": "BertTokenizer"}, ("[CLS]", "[SEP]"), ("[CLS]", "[SEP]")
    ),
    "all-mpnet (mpnet)": Published(
        _mpnet,
        "mpnet",
        {**_XLMR, "unk_token": "[UNK]", "tokenizer_class": "MPNetTokenizer"},
        ("<s>", "</s>"),
        ("<s>", "</s>"),
    ),
    "bge-m3, multilingual-e5 (xlm-roberta)": Published(
        _unigram, "xlm-roberta", {**_XLMR, "tokenizer_class": "XLMRobertaTokenizer"}, ("<s>", "</s>"), ("<s>", "</s>")
    ),
    "an xlm-roberta whose file keeps spaces, which its class does not": Published(
        partial(_unigram, split=False),
        "xlm-roberta",
        {**_XLMR, "tokenizer_class": "XLMRobertaTokenizer"},
        ("<s>", "</s>"),
        ("<s>", "</s>"),
    ),
    "all-roberta (roberta)": Published(
        _roberta, "roberta", {**_XLMR, "tokenizer_class": "RobertaTokenizer"}, ("<s>", "</s>"), ("<s>", "</s>")
    ),
    "e5-mistral (mistral)": Published(
        _llama,
        "mistral",
        {**_MISTRAL, "add_bos_token": True, "add_eos_token": True, "tokenizer_class": "LlamaTokenizer"},
        ("<s>", ""),
        ("<s>", "</s>"),
        "lasttoken",
    ),
    "e5-mistral saved with left padding": Published(
        _llama,
        "mistral",
        {
            **_MISTRAL,
            "add_bos_token": True,
            "add_eos_token": True,
            "padding_side": "left",
            "tokenizer_class": "LlamaTokenizer",
        },
        ("<s>", ""),
        ("<s>", "</s>"),
        "lasttoken",
    ),
    "gte-Qwen2 (qwen2)": Published(
        _qwen, "qwen2", {**_QWEN, "add_eos_token": True}, ("", ""), ("", "<|endoftext|>"), "lasttoken"
    ),
    "Qwen3-Embedding (qwen3)": Published(
        _qwen,
        "qwen3",
        {**_QWEN, "eos_token": "<|im_end|>", "padding_side": "left"},
        ("", "<|endoftext|>"),
        ("", "<|endoftext|>"),
        "lasttoken",
    ),
    "embeddinggemma (gemma3)": Published(
        _gemma,
        "gemma3_text",
        {
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "tokenizer_class": "GemmaTokenizer",
        },
        ("<bos>", "<eos>"),
        ("<bos>", "<eos>"),
    ),
    "llama with both tokens by its settings (llama)": Published(
        _llama,
        "llama",
        {**_MISTRAL, "add_bos_token": True, "add_eos_token": True, "tokenizer_class": "LlamaTokenizer"},
        ("", ""),
        ("<s>", "</s>"),
        "lasttoken",
    ),
    "SGPT (gpt2) saved with left padding": Published(
        _gpt2,
        "gpt2",
        {"eos_token": "<|endoftext|>", "padding_side": "left", "tokenizer_class": "GPT2Tokenizer"},
        ("", ""),
        ("", ""),
        "weightedmean",
    ),
    "instructor, sentence-t5 (t5)": Published(
        _unigram,
        "t5",
        {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "tokenizer_class": "T5Tokenizer"},
        ("", "</s>"),
        ("", "</s>"),
    ),
    "bert saved with left padding": Published(
        _bert,
        "bert",
        {"tokenizer_class": "BertTokenizer", "padding_side": "left"},
        ("[CLS]", "[SEP]"),
        ("[CLS]", "[SEP]"),
    ),
}


def save_published(folder: Path, name: str) -> Path:
    """A plain folder as somebody publishes it: tokenizer.json with its own template, settings beside it, weights."""
    made = PUBLISHED[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = made.build()
    tokenizer.post_processor = _post_processor(tokenizer, made.tokens)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"model_max_length": 40, **made.settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = _model(made, tokenizer)
    randomise(model)
    model.save_pretrained(folder)
    return folder


def _post_processor(tokenizer: Tokenizer, tokens: tuple[str, str]) -> Any:
    kept = tokenizer.post_processor
    opening, closing = tokens
    if not (opening or closing):
        return kept
    ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(tokens) if token]
    template = processors.TemplateProcessing(
        single=" ".join(filter(None, (opening, "$A", closing))), special_tokens=ids
    )
    return processors.Sequence([kept, template]) if kept is not None else template


def _model(made: Published, tokenizer: Tokenizer) -> Any:
    sizes = {**SIZES, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 0}
    if made.model == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 66}
        return transformers.GPT2Model(transformers.GPT2Config(vocab_size=sizes["vocab_size"], **shape))
    if made.model == "t5":
        config = transformers.T5Config(
            vocab_size=sizes["vocab_size"], d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4
        )
        return transformers.T5EncoderModel(config)
    kinds = {
        "bert": transformers.BertConfig,
        "mpnet": transformers.MPNetConfig,
        "xlm-roberta": transformers.XLMRobertaConfig,
        "roberta": transformers.RobertaConfig,
        "mistral": transformers.MistralConfig,
        "llama": transformers.LlamaConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma3_text": transformers.Gemma3TextConfig,
    }
    if made.model in ("mpnet", "xlm-roberta", "roberta"):
        sizes["pad_token_id"] = 1
    if made.model in ("mistral", "llama", "qwen2", "qwen3", "gemma3_text"):
        sizes["num_key_value_heads"] = 2
    if made.model in ("qwen3", "gemma3_text"):
        sizes["head_dim"] = 8
    if made.model == "gemma3_text":
        sizes |= {"use_bidirectional_attention": True, "sliding_window": 8}
    return transformers.AutoModel.from_config(kinds[made.model](**sizes))

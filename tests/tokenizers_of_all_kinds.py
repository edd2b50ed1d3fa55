"""Small real tokenizers of the kinds that encoders have, trained on a few sentences."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "The museum opens at nine. Tickets cost 12 euros, children pay half; groups should book ahead!",
    "Über dem Fluss liegt die Altstadt mit ihren Gässchen. Die Donaudampfschifffahrt beginnt im April.",
    "Les résultats sont classés par pertinence décroissante, et l'été s'achève déjà.",
    "東京の天気は明日から雨になるでしょう。駅まで歩いて十分です。",
    "Поиск по документам возвращает десять лучших результатов.",
    "def mean(values):\n    return sum(values) / len(values)  # 3.14\n",
    "passage: query: a title > a heading > a paragraph \t with tabs",
] * 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL))
    return tokenizer


def _bytes() -> Tokenizer:
    """As of RoBERTa and ModernBERT: a word has another token at the start of a text than after a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _unigram() -> Tokenizer:
    """As of XLM-RoBERTa (multilingual E5, BGE-M3): a space is a part of the word behind it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="[UNK]")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def _sentencepiece() -> Tokenizer:
    """As of T5 and Gemma: a whole text is one piece in which spaces are written as ▁, and unknown letters as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=[*SPECIAL, *pieces], limit_alphabet=60)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


KINDS = {"wordpiece": _wordpiece, "bytes": _bytes, "unigram": _unigram, "sentencepiece": _sentencepiece}


def save_tokenizer(folder: Path, kind: str) -> Path:
    """A folder with a tokenizer.json that puts [CLS] and [SEP] around a text."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = KINDS[kind]()
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    return folder

"""Ways to spoil a good model folder: each leads a library to code, to a hub, out of the folder, or to memory."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

HUGE = 10**7
DEEP = '{"a":' * 5000 + "1" + "}" * 5000
DIGITS = '{"hidden_size": ' + "9" * 5000 + "}"


def change(folder: Path, name: str, **values: Any) -> None:
    """Set values in a JSON file, which is made if it is not there."""
    path = folder / name
    saved = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**saved, **values}))


Settings = tuple[str, Mapping[str, Any]]

ELSEWHERE: Mapping[str, Settings] = {
    "attention of a hub": ("config.json", {"attn_implementation": "owner/kernel"}),
    "attention of a hub, its other name": ("config.json", {"_attn_implementation": "kernels-community/flash-attn2"}),
    "attention as it is kept": ("config.json", {"_attn_implementation_internal": "owner/kernel@main:attention"}),
    "attention by part": ("config.json", {"attn_implementation": {"": "sdpa", "text_config": "owner/kernel"}}),
    "attention in a part": ("config.json", {"text_config": {"attn_implementation": "owner/kernel"}}),
    "attention in a list": ("config.json", {"parts": [{"attn_implementation": "owner/kernel"}]}),
    "paged attention": ("config.json", {"attn_implementation": "paged|owner/kernel"}),
    "attention that is a number": ("config.json", {"attn_implementation": 7}),
    "experts of a hub": ("config.json", {"experts_implementation": "owner/kernel"}),
    "packed weights": ("config.json", {"quantization_config": {"quant_method": "fp8"}}),
    "other weights": ("config.json", {"transformers_weights": "other.safetensors"}),
    "another config": ("config.json", {"configuration_files": ["config.4.0.0.json"]}),
    "fused layers": ("config.json", {"fusion_config": {"rms_norm": True}}),
    "kernels": ("config.json", {"use_kernels": True}),
    "a backbone": ("config.json", {"backbone": "owner/model", "use_pretrained_backbone": True}),
    "a model of images": ("config.json", {"model_type": "timm_wrapper"}),
    "a model with a pickle of voices": ("config.json", {"model_type": "qwen2_5_omni"}),
    "arguments for the loader": (
        "sentence_bert_config.json",
        {"max_seq_length": 64, "model_args": {"weights_only": False, "use_safetensors": False}},
    ),
    "arguments under their new name": ("sentence_bert_config.json", {"model_kwargs": {"allow_all_kernels": True}}),
    "vocabulary elsewhere": ("sentence_bert_config.json", {"tokenizer_args": {"vocab_file": "/etc/passwd"}}),
    "arguments that are no object": ("sentence_bert_config.json", {"config_args": [["a", 1]]}),
    "an activation of torch's own": ("config.json", {"sentence_transformers": {"activation_fn": "torch.hub.list"}}),
    "an activation of anything": ("config.json", {"sbert_ce_default_activation_function": "os.system"}),
    "an activation of the head": (
        "config_sentence_transformers.json",
        {"activation_fn": "torch.utils.collect_env.main"},
    ),
    "positional arguments": ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}),
}

SIZES: Mapping[str, Mapping[str, Any]] = {
    "layers": {"num_hidden_layers": HUGE},
    "layers as a float": {"num_hidden_layers": 1e7},
    "width": {"hidden_size": HUGE},
    "heads": {"num_attention_heads": HUGE},
    "words": {"vocab_size": 10**12},
    "words by width": {"vocab_size": 48, "hidden_size": 48, "intermediate_size": 10**6},
    "middle": {"intermediate_size": HUGE},
    "positions": {"max_position_embeddings": 10**12},
    "types": {"type_vocab_size": HUGE},
    "labels": {"num_labels": 10**9},
    "in a part": {"text_config": {"num_hidden_layers": HUGE}},
    "experts": {"num_local_experts": HUGE},
    "anything that is counted": {"num_hash_functions": HUGE},
    "negative": {"num_hidden_layers": -5},
    "repeated in a list": {"attention_types": [[["global", "local"], 10**9]]},
}

KINDS: Mapping[str, Mapping[str, Any]] = {
    "layers within a layer": {"model_type": "albert", "embedding_size": 32, "inner_group_num": HUGE},
    "a layer for each language": {"model_type": "xmod", "languages": [f"l{i}" for i in range(20_000)]},
    "another vocabulary": {"model_type": "luke", "entity_vocab_size": 10**9, "entity_emb_size": 32},
    "positions": {"model_type": "roformer", "max_position_embeddings": 1 << 24, "embedding_size": 32},
}
"""Types of models that have names of their own for what they need much of."""

MODULES: Mapping[str, Any] = {
    "code of the repository": [{"path": "", "type": "modeling_mine.Transformer"}],
    "another module": [{"path": "", "type": "sentence_transformers.models.WordEmbeddings"}],
    "a path that leads out": [{"path": "../outside", "type": "sentence_transformers.models.Transformer"}],
    "an absolute path": [{"path": "/etc", "type": "sentence_transformers.models.Transformer"}],
    "a name with a NUL": [{"path": "a\0b", "type": "sentence_transformers.models.Transformer"}],
    "a name with an escape": [{"path": "a\x1b[2J", "type": "sentence_transformers.models.Transformer"}],
    "half a surrogate": [{"path": "a\ud800", "type": "sentence_transformers.models.Transformer"}],
    "a name of 5,000 letters": [{"path": "a" * 5000, "type": "sentence_transformers.models.Transformer"}],
    "thousands": [{"path": "", "type": "sentence_transformers.models.Dropout"}] * 5000,
    "no list": {"path": ""},
    "rows that are numbers": [1, 2],
    "names that are numbers": [{"path": 1, "type": 2}],
}


def header(entries: Any, *, size: int = 64, length: int | None = None) -> bytes:
    """A safetensors file with that header, and `size` bytes of data."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * size


def tensor(shape: Any, begin: int = 0, end: int = 16, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: Mapping[str, bytes] = {
    "no header": b"",
    "a length beyond the file": header({}, length=2**63),
    "a length of 100 MB": header(b" " * 64, length=100_000_000),
    "no JSON": header(b"{"),
    "deep JSON": header(DEEP.encode()),
    "5,000 digits": header(DIGITS.encode()),
    "not UTF-8": header(b'{"\xff": 1}'),
    "a list": header([1, 2]),
    "a name twice": header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "a": {}}'),
    "a negative shape": header({"a": tensor([-2, -2])}),
    "a shape of floats": header({"a": tensor([2.0, 2.0])}),
    "a shape of truths": header({"a": tensor([True, 4])}),
    "a shape that is a number": header({"a": tensor(4)}),
    "a shape of texts": header({"a": tensor("4")}),
    "a thousand axes": header({"a": tensor([1] * 1000)}),
    "a shape beyond 63 bits": header({"a": tensor([2**64, 0], 0, 0)}),
    "offsets that overlap": header({"a": tensor([4]), "b": tensor([4], 8, 24)}),
    "offsets with a hole": header({"a": tensor([4]), "b": tensor([4], 32, 48)}),
    "offsets the wrong way round": header({"a": tensor([4], 16, 0)}),
    "offsets beyond the file": header({"a": tensor([2**40], 0, 2**42)}),
    "three offsets": header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}}),
    "a type that is a number": header({"a": tensor([4], dtype=5)}),
}


def npz(arrays: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)
    return stream.getvalue()


def npy(shape: str, *, dtype: str = "'<f4'", content: bytes = b"") -> bytes:
    """The file of an array whose header claims what it likes."""
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return stream.getvalue()


ARRAYS: Mapping[str, Callable[[], bytes]] = {
    "4 TB": lambda: npz({"weight.npy": npy("(1000000, 1000000)")}),
    "4 TB of nothing": lambda: npz({"weight.npy": npy("(1000000000000, 0)")}),
    "a negative shape": lambda: npz({"weight.npy": npy("(-2, -2)", content=b"\0" * 16)}),
    "a deep header": lambda: npz({"weight.npy": npy("(" * 3000 + ")" * 3000)}),
    "pickled objects": lambda: npz({"weight.npy": pickled()}),
    "a structured type": lambda: npz({"weight.npy": npy("(1,)", dtype="[('a', '<f4', (1000000, 1000000))]")}),
    "texts": lambda: npz({"weight.npy": npy("(1,)", dtype="'<U1000000000'")}),
    "a bomb": lambda: npz({"weight.npy": bytes(50_000_000)}, compression=zipfile.ZIP_DEFLATED),
    "thousands of members": lambda: npz({f"{i}.npy": npy("()") for i in range(2000)}),
    "no member": lambda: npz({}),
    "another member": lambda: npz({"other.npy": npy("(2, 2)", content=b"\0" * 16)}),
    "a member that is no array": lambda: npz({"weight.npy": b"hello"}),
    "no archive": lambda: b"PK\x05\x06",
}


def with_tokenizer(folder: Path, **parts: Any) -> None:
    change(folder, "tokenizer.json", **parts)


_REPLACE = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 100}
_BRACKETS = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}], "pair": []}

_BETWEEN = {"type": "Replace", "pattern": {"Regex": "(?=.)"}, "content": "x"}
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
# a trie without a word, and a text that it could name
_TABLE = {
    "type": "Precompiled",
    "precompiled_charsmap": base64.b64encode(struct.pack("<I", 1024) + bytes(1024) + b"a" * 100 + b"\0").decode(),
}
_CROWDED = {
    **_BRACKETS,
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 10_000 + [{"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2] * 5000, "tokens": ["[CLS]"] * 5000}},
}

TOKENIZERS: Mapping[str, Mapping[str, Any]] = {
    "a pattern that is none": {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
    "a pattern without end": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
    "a broken table": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "a table that points elsewhere": {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(b"\4" + bytes(14)).decode()}
    },
    "texts a million times as long": {"normalizer": {"type": "Sequence", "normalizers": [_REPLACE] * 3}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a frame without its tokens": {"post_processor": {**_BRACKETS, "special_tokens": {}}},
    "an unknown part": {"normalizer": {"type": "Import", "module": "os"}},
    "no words": {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}},
    "words beyond 32 bits": {"model": {"type": "WordLevel", "vocab": {"a": 2**40}, "unk_token": "a"}},
    "texts twice as long, and again": {"normalizer": {"type": "Sequence", "normalizers": [_BETWEEN] * 24}},
    "two characters for a byte, and again": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [_BYTES] * 30}},
    "a table of long texts, again and again": {"normalizer": {"type": "Sequence", "normalizers": [_TABLE] * 6}},
    "steps without end": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 10_000}},
    "fifty million tokens around a text": {"post_processor": _CROWDED},
    "a word that no model has": {"model": {"type": "WordLevel", "vocab": {"[UNK]": 2**32 - 1}, "unk_token": "[UNK]"}},
}


def out_by_a_link(folder: Path, outside: Path) -> None:
    (folder / "notes.txt").symlink_to(outside / "secret.txt")


def out_by_a_config(folder: Path, outside: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(os.path.relpath(outside / "below" / "config.json", folder))


def out_by_a_module(folder: Path, outside: Path) -> None:
    (folder / "3_More").symlink_to(outside)


def out_by_a_chain(folder: Path, outside: Path) -> None:
    (folder / "a.json").symlink_to("b.json")
    (folder / "b.json").symlink_to(outside / "secret.txt")


def a_pipe(folder: Path, outside: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def an_adapter_elsewhere(folder: Path, outside: Path) -> None:
    (folder / "adapter").mkdir(exist_ok=True)
    (folder / "adapter" / "adapter.json").symlink_to(outside / "secret.txt")


LINKS: Mapping[str, Callable[[Path, Path], None]] = {
    "a file": out_by_a_link,
    "the config": out_by_a_config,
    "a folder": out_by_a_module,
    "a chain": out_by_a_chain,
    "a pipe": a_pipe,
    "an adapter": an_adapter_elsewhere,
}

"""A model folder that somebody else made -> a copy of it that sentence-transformers may open, and the model in it.

`models.received` refuses what leads a library to code or downloads. What is left can still ask for other weight files,
pickles beside them, vocabulary anywhere on the disk, arguments of loaders. So training, guides and judges open a copy
that holds weights, vocabulary and those settings that describe the model, and nothing that asks.

Guarantees: weights come from the safetensors files that `models.weights` hashes; nothing outside the folder is read; no
code runs; what the library raises for odd files is DamagedModelError. Does not know: what the model is used for.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_index_embed_plus.encoders.torch_encoder import quiet, require_known, within_weights
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.artifact import LARGEST_TEXT
from llama_index_embed_plus.models.files import inside, module_rows, read_json, write_json
from llama_index_embed_plus.models.framing import check_tokenizer, panics_silenced
from llama_index_embed_plus.models.weights import weight_files
from qdrant_tools.errors import NotSupportedError, PlusError, first_line
from qdrant_tools.files import json_files
from qdrant_tools.files.trees import copy_tree

_KEPT = (".json", ".safetensors", ".txt", ".model", ".jinja")
_LEFT_OUT = {"onnx", "openvino", "adapter"}
_HOW_TO_READ = "sentence_bert_config.json"
_SETTINGS = {"config.json", "tokenizer_config.json", "config_sentence_transformers.json", _HOW_TO_READ}
_DATA = {"tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"}
_ASKING = re.compile(
    r"auto_map|transformers_weights|_?(attn|experts)_implementation(_internal|_autoset)?|quantization_config|"
    r"\w*_file|_?name_or_path|_commit_hash|custom_pipelines|requirements|kernel_config"
)
"""Settings that name files, code or kernels. None of them describes what a model with safetensors computes."""
_READING = {
    *("max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name"),
    *("query_expansion", "query_length", "document_length"),
}
"""The settings of sentence_bert_config.json that are kept. Others are arguments for the loaders of transformers."""
_MODULE = re.compile(
    r"sentence_transformers(\.\w+)*\.(Transformer|Pooling|Dense|LayerNorm|Normalize|Dropout|LogitScore)"
)


def library_copy(folder: Path, target: Path) -> None:
    """Fill `target`, an empty folder, with what the library may see of `folder`; weights as links to them.

    Raises:
        DamagedModelError: a link leads out of `folder`, there are no safetensors, or a file cannot be read.
        NotSupportedError: it asks for modules or LoRA matrices that are not loaded here.
    """
    copy_tree(folder, target, keep=_is_kept, copy=_linked, error=DamagedModelError)
    folders = [target, *(path for path in target.rglob("*") if path.is_dir())]
    if not [file for path in folders for file in weight_files(path)]:
        raise DamagedModelError(
            f"{folder} holds no safetensors, and other weights are not read: open it where you trust it, and save it "
            "again with safetensors"
        )
    disarm(target)


def disarm(folder: Path) -> None:
    """Take every setting out of a copy that asks for something: see the module. Raises as `library_copy`."""
    places = _places(folder)
    for path in sorted(folder.rglob("*.json")):
        # a repository may keep a LoRA beside the whole model, in a folder that nothing opens
        if path.name == "adapter_config.json" and path.parent in places:
            raise NotSupportedError(f"{folder} holds a LoRA adapter: merge it into its base model and save that")
        if path.name in _SETTINGS:
            _rewrite(path)
        elif path.name == "modules.json":
            _check_modules(path)
        elif path.name == "model.safetensors.index.json":
            _check_shards(path)
        elif path.name == "tokenizer.json":
            check_tokenizer(path.parent)
        elif path.name not in _DATA:
            path.unlink()


def _rewrite(path: Path) -> None:
    saved = read_json(path.parent, path.name) or {}
    if path.name == "config.json":
        require_known(saved.get("model_type"))
    kept = _without_asking(saved)
    if path.name == _HOW_TO_READ:
        kept = {key: value for key, value in kept.items() if key in _READING}
    if kept != saved:
        write_json(path, kept)


def _places(folder: Path) -> list[Path]:
    """The folders that sentence-transformers opens."""
    return [folder, *(inside(folder, path) for _, path in module_rows(folder))]


def _weights_in(folder: Path) -> list[Path]:
    return [file for place in dict.fromkeys(_places(folder)) for file in weight_files(place)]


def _check_shards(index: Path) -> None:
    """Refuse shards that are no safetensors: the library would unpickle them."""
    others = [file for file in weight_files(index.parent) if file.suffix != ".safetensors"]
    if others:
        raise DamagedModelError(f"{index.name} names {others[0].name[:80]!r}, expected safetensors; fetch it again")


@contextmanager
def opening(folder: Path) -> Iterator[dict[str, Any]]:
    """Arguments for a model of sentence-transformers; whatever it raises inside is one DamagedModelError."""
    try:
        # a panic of the tokenizers library is no Exception, and prints what it likes
        with quiet(), panics_silenced(folder), within_weights(folder, _weights_in(folder)):
            yield {
                "local_files_only": True,
                "trust_remote_code": False,
                "model_kwargs": {"use_safetensors": True, "weights_only": True},
            }
    except PlusError:
        raise
    except Exception as error:  # values are checked only where they are used, so odd ones end in errors of every kind
        reason = first_line(error)[:300]
        raise DamagedModelError(f"{folder} cannot be opened by sentence-transformers: {reason}") from error


def _is_kept(relative: Path) -> bool:
    return relative.suffix in _KEPT and not relative.name.startswith(".") and not _LEFT_OUT & set(relative.parts[:-1])


def _linked(source: Path, target: Path) -> None:
    """Link to weights, which are large and only read; copy the rest."""
    if source.suffix == ".safetensors":
        try:
            os.symlink(source.resolve(), target)
        except OSError:  # Windows, where not everybody may
            shutil.copyfile(source, target)
    elif source.stat().st_size <= LARGEST_TEXT:  # what is larger is data that lies beside the model
        shutil.copyfile(source, target)


def _without_asking(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_asking(inner) for key, inner in value.items() if not _ASKING.fullmatch(key)}
    return [_without_asking(inner) for inner in value] if isinstance(value, list) else value


def _check_modules(path: Path) -> None:
    rows = json_files.read_json(path, error=DamagedModelError)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise DamagedModelError(f"{path.name} is damaged, expected a list of modules; fetch it again")
    for row in rows:
        kind, place = row.get("type"), row.get("path")
        if not isinstance(kind, str) or not _MODULE.fullmatch(kind):
            raise NotSupportedError(f"{path.name} asks for the module {str(kind)[:80]!r}, which is not loaded here")
        if not isinstance(place, str) or Path(place).is_absolute() or ".." in Path(place).parts:
            raise DamagedModelError(f"{path.name} names {str(place)[:80]!r}, expected a folder of the model")

"""The model folder this project writes: a sentence-transformers folder that also serves without torch.

::

    config.json, model.safetensors, tokenizer.json, modules.json, 1_Pooling/ ...   as sentence-transformers writes them
    onnx/model.onnx          the graph: ids and mask in, vectors out
    onnx/parity.json         how well it agrees with the weights
    adapter/                 a map on query vectors, if one was kept
    train_report.json        how it was trained, and whether that is proved to do no harm; if it was trained here
    embed_plus.json          format, spec, space, builds, sha256 of every file; written last

Guarantees: a folder without embed_plus.json is not an artifact, so half of one never passes for a whole; a file that
is not what was sealed is DamagedModelError naming it; no path in the manifest leads out of the folder.
Does not know: what is in the files.

An EncoderSpec -> the sentence-transformers files that say the same, so that every other tool reads it too.

Needed where a spec does not come from the folder's files alone: facts from `families`, a caller's overrides, a plain
transformers folder. The pooling config is written in a form that every reader knows: the booleans of old versions and
the single name of new ones. Guarantees: reading the folder back gives the spec; files that already say so are left
alone. Does not know: weights. sentence-transformers has no attention-weighted pooling and no windows over long texts:
it reads such a folder without them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.config import LEGACY_POOLING, name_of, read_facts
from llama_index_embed_plus.models.files import (
    MANIFEST,
    Settings,
    inside,
    modules_of,
    onnx_files,
    read_json,
    write_json,
)
from llama_index_embed_plus.models.pooling import ATTENTION
from llama_index_embed_plus.models.spec import EncoderSpec, read_spec, space_of, weights_of
from qdrant_tools.errors import UsageError

FORMAT = 1
ADAPTER = "adapter"
TRAIN_REPORT = "train_report.json"
_IN_THE_GRAPH = ("pooling", "include_prompt", "head", "normalize", "dimension", "truncate_dim")
_COPIED = (".json", ".safetensors", ".txt", ".model", ".md", ".jinja")


@dataclass(frozen=True)
class Build:
    """One way to compute the vectors: `build` is its name, `file` the graph."""

    build: str
    file: Path


@dataclass(frozen=True)
class Manifest:
    """What embed_plus.json says. `builds`: name -> {"file", ...}; `sha256`: path -> hex, of every other file."""

    spec: EncoderSpec
    space: str
    weights: str
    """`spec.weights_of`: names the weights that every build was made from, also where they were left out."""
    builds: Mapping[str, Mapping[str, Any]]
    sha256: Mapping[str, str]
    made_by: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


def is_artifact(folder: Path) -> bool:
    """Whether `folder` carries a manifest."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read embed_plus.json. Raises DamagedModelError if it is missing, incomplete or of a newer format."""
    saved = read_json(folder, MANIFEST)
    if saved is None:
        raise DamagedModelError(f"{folder / MANIFEST} is missing: {str(folder)!r} is no artifact, or was not finished")
    if saved.get("format") != FORMAT:
        raise DamagedModelError(f"{folder / MANIFEST} has format {saved.get('format')!r}, this version reads {FORMAT}")
    settings = Settings(folder / MANIFEST, saved)
    spec = EncoderSpec.from_dict(settings.table("spec").values)
    builds = {name: settings.table("builds").table(name) for name in settings.table("builds").values}
    hashes = {name: settings.table("sha256").text(name) or "" for name in settings.table("sha256").values}
    files = [build.text("file") or "" for build in builds.values()]
    for name in (*hashes, *files, spec.transformer_path, *(step.path for step in spec.head)):
        inside(folder, name)
    space, weights = settings.text("space"), settings.text("weights")
    if space is None or weights is None:
        raise DamagedModelError(f"{folder / MANIFEST} names no space or weights; write the artifact again")
    values = {name: build.values for name, build in builds.items()}
    return Manifest(spec, space, weights, values, hashes, settings.table("made_by").values)


def verify(folder: Path, files: Iterable[str] | None = None) -> Manifest:
    """Compare files, all or those named, with what was sealed. DamagedModelError names the first that differs."""
    manifest = read_manifest(folder)
    for name in sorted(manifest.sha256) if files is None else files:
        path = inside(folder, name)
        if name not in manifest.sha256:
            raise DamagedModelError(f"{path} is not part of the artifact: {MANIFEST} does not list it")
        if not path.is_file():
            raise DamagedModelError(f"{path} is missing; copy the artifact again")
        # A link inside a folder that was sent to somebody could read any file of theirs.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DamagedModelError(f"{path} leads out of the artifact; copy the artifact again without links")
        if hash_file(path) != manifest.sha256[name]:
            raise DamagedModelError(f"{path} is not the file that was sealed; copy the artifact again")
    return manifest


def write_manifest(
    folder: Path,
    *,
    spec: EncoderSpec | None = None,
    builds: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "",
) -> Manifest:
    """Seal `folder` as it is: read its spec, name its space, hash every file, write embed_plus.json as the last one.

    spec: how to read the folder, which its files are made to say; None: as they say.
    builds: what to record beside those of an earlier manifest; `torch-fp32` is always there.
    name: what people call this model; "": as before, or after the weights if a `spec` is given.
    """
    before = read_manifest(folder) if is_artifact(folder) else None
    if spec is None:
        spec = read_spec(folder)
    elif not name:
        name, _ = name_of(folder / spec.transformer_path)
    spec = replace(spec, name=name or spec.name)
    write_spec_files(folder, spec)
    recorded = {"torch-fp32": {"file": ""}, **(before.builds if before else {}), **(builds or {})}
    # After every other file is in place: what is hashed here is what will be opened.
    hashes = {path: hash_file(folder / path) for path in _files(folder)}
    weights = weights_of(folder, spec)
    manifest = Manifest(spec, space_of(folder, spec, weights=weights), weights, recorded, hashes, versions())
    write_json(folder / MANIFEST, {**asdict(manifest), "spec": spec.as_dict()})
    return manifest


def verify_small_files(folder: Path) -> Manifest:
    """Verify everything but weights and graphs: those are hashed when they are used. Reads a megabyte or two."""
    heavy = (".safetensors", ".onnx", ".data")
    manifest = read_manifest(folder)
    return verify(folder, [name for name in sorted(manifest.sha256) if not name.endswith(heavy)])


def fits(manifest: Manifest, spec: EncoderSpec) -> bool:
    """Whether the graphs of an artifact compute what `spec` asks for. Prompts and lengths lie outside of a graph."""
    return all(getattr(spec, name) == getattr(manifest.spec, name) for name in _IN_THE_GRAPH)


def onnx_build(folder: Path, manifest: Manifest | None, spec: EncoderSpec, *, build: str | None = None) -> Build | None:
    """The ONNX graph to run, its hash checked: `build`, or int8 before fp32. Of a hub folder: the one it carries."""
    if manifest is None:
        file = next(onnx_files(folder), None)
        return Build("onnx-fp32", file) if file and build in (None, "onnx-fp32") else None
    for name in (build,) if build else ("onnx-int8", "onnx-fp32"):
        if name not in manifest.builds:
            continue
        if not fits(manifest, spec):
            raise UsageError(f"{folder}: its graph has other {', '.join(_IN_THE_GRAPH)} inside; use backend='torch'")
        graph = str(manifest.builds[name].get("file") or "")
        verify(folder, [path for path in manifest.sha256 if path in (graph, f"{graph}.data")] or [graph])
        return Build(name, inside(folder, graph))
    return None


def refusal(folder: Path) -> str | None:
    """Why the artifact must not be promoted, one line; None if it may, or was not trained here.

    It is what `promotable` and `verdict` of train_report.json say. Raises DamagedModelError if they say nothing.
    """
    saved = read_json(folder, TRAIN_REPORT)
    if saved is None:
        return None
    report = Settings(folder / TRAIN_REPORT, saved)
    promotable, verdict = report.flag("promotable"), report.text("verdict")
    if promotable is None or not verdict:
        raise DamagedModelError(f"{folder / TRAIN_REPORT} has no verdict: train again")
    return None if promotable else verdict


def copy_model(source: Path, target: Path, *, spec: EncoderSpec | None = None) -> None:
    """Copy the files of a model folder that this project reads: no pickle, no code, no other runtime's files.

    The copy's files state what `spec` says (None: as `source` is read), also facts that hung on the folder's name.
    """
    left_out = {"onnx", "openvino", ADAPTER}
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if (
            path.suffix in _COPIED
            and path.name != MANIFEST
            and path.is_file()
            and not left_out & set(relative.parts[:-1])
        ):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)
    write_spec_files(target, spec or read_spec(source))


def check_out(out: Path) -> None:
    """Refuse an `out` that holds something other than an artifact: it would be replaced. Raises UsageError."""
    if out.exists() and not is_artifact(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} exists and is no artifact; give a new folder")


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """Give a folder to write into beside `out`; rename it to `out` if all went well, else leave nothing behind.

    An `out` that holds something other than an artifact is refused with UsageError.
    """
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    draft.chmod(0o755)  # mkdtemp's 0o700 would make the artifact private
    try:
        yield draft
        # Two renames: for a moment there is neither, but never a mixture of both.
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
            os.replace(out, old / "old")
            os.replace(draft, out)
            shutil.rmtree(old)
        else:
            os.replace(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def hash_file(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """The versions that matter to what was written."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    ours = ("llama-index-embed-plus", "onnx", "onnxruntime", "tokenizers", "torch", "transformers")
    for name in (*ours, "sentence-transformers", "accelerate", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _files(folder: Path) -> list[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if path.name != MANIFEST and not path.name.startswith("."))


logger = logging.getLogger(__name__)

_TYPE = "sentence_transformers.models."
"""Module types as every version of sentence-transformers since 2 understands them."""


def write_spec_files(folder: Path, spec: EncoderSpec) -> None:
    """Make the files of `folder` say what `spec` says."""
    _modules(folder, spec)
    stated = {name: value for name, (value, _) in read_facts(folder).items()}
    _pooling(folder, spec)
    _prompts(folder, spec, stated)
    inner = folder / spec.transformer_path
    if (spec.max_tokens, spec.lowercase) != (stated["max_tokens"], stated["lowercase"]):
        limits = {"max_seq_length": spec.max_tokens, "do_lower_case": spec.lowercase}
        _update(inner / "sentence_bert_config.json", limits)
    if spec.append_eos and not stated.get("append_eos"):
        _update(inner / "tokenizer_config.json", {"add_eos_token": True})
    if ATTENTION in spec.pooling or spec.long_text == "mean":
        logger.warning("%s: sentence-transformers reads this folder without attention pooling and windows", folder)


def _modules(folder: Path, spec: EncoderSpec) -> None:
    """modules.json: written if missing, and ending in Normalize if the vectors are normalised."""
    path = folder / "modules.json"
    rows = json.loads(path.read_text("utf-8")) if path.is_file() else []
    kinds = [kind for kind, _ in modules_of(folder)]
    # A plain transformers folder becomes one of sentence-transformers.
    if not rows:
        rows = [{"path": "", "type": _TYPE + "Transformer"}]
    if "Pooling" not in kinds:
        rows.insert(1, {"path": "1_Pooling", "type": _TYPE + "Pooling"})
    ends_normalised = kinds[-1] == "Normalize"
    if spec.normalize and not ends_normalised:
        rows.append({"path": f"{len(rows)}_Normalize", "type": _TYPE + "Normalize"})
    elif not spec.normalize and ends_normalised:
        rows.pop()
    numbered = [{"idx": i, "name": str(i), "path": row["path"], "type": row["type"]} for i, row in enumerate(rows)]
    if numbered != (json.loads(path.read_text("utf-8")) if path.is_file() else None):
        write_json(path, numbered)
    for kind, place in modules_of(folder):
        if kind == "Pooling":
            (inside(folder, place)).mkdir(exist_ok=True)
            if not (folder / place / "config.json").is_file():
                write_json(folder / place / "config.json", {"pooling_mode": "mean"})


def _pooling(folder: Path, spec: EncoderSpec) -> None:
    place = next(place for kind, place in modules_of(folder) if kind == "Pooling")
    path = folder / place / "config.json"
    saved = read_json(folder / place, "config.json") or {}
    modes = [mode for mode in spec.pooling if mode != ATTENTION] or ["mean"]
    config = read_json(folder / spec.transformer_path, "config.json") or {}
    width = saved.get("word_embedding_dimension", saved.get("embedding_dimension"))
    wanted = {
        "word_embedding_dimension": width or config.get("hidden_size") or config.get("d_model") or config.get("dim"),
        **{key: mode in modes for key, mode in LEGACY_POOLING.items()},
        "include_prompt": spec.include_prompt,
        "pooling_mode": modes[0] if len(modes) == 1 else modes,
    }
    if saved != wanted:
        write_json(path, wanted)


def _prompts(folder: Path, spec: EncoderSpec, stated: dict[str, Any]) -> None:
    wanted = {"query": spec.query_prompt, "document": spec.passage_prompt}
    changes: dict[str, Any] = {}
    if (spec.query_prompt, spec.passage_prompt) != (stated["query_prompt"], stated["passage_prompt"]):
        saved = read_json(folder, "config_sentence_transformers.json") or {}
        changes["prompts"] = {**(saved.get("prompts") or {}), **wanted}
    if spec.truncate_dim != stated.get("truncate_dim"):
        changes["truncate_dim"] = spec.truncate_dim
    if changes:
        _update(folder / "config_sentence_transformers.json", changes)


def _update(path: Path, changes: dict[str, Any]) -> None:
    write_json(path, {**(read_json(path.parent, path.name) or {}), **changes})

"""The model folder this project writes: a sentence-transformers folder that also serves without torch.

::

    config.json, model.safetensors, tokenizer.json, modules.json, 1_Pooling/ ...   as sentence-transformers writes them
    onnx/model.onnx          the graph: ids and mask in, vectors out
    onnx/parity.json         how well it agrees with the weights
    adapter/                 a map on query vectors, if one was kept
    train_report.json        if it was trained here: how, and whether the training is proved to do no harm
    heldout/                 the queries on which that was measured, and their judgements; left out of every copy
    embed_plus.json          the manifest: format, spec, space, builds, sha256 of every file; written last

Guarantees: a folder without a manifest is not an artifact, so an unfinished one is never taken for a whole one; a file
that changed since the manifest was written, or that it does not list, is DamagedModelError naming it; no path in the
manifest and no link leads out of the folder; a copy holds no links, and no texts of those on whom the model was tested.
Does not know: what is in the other files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.config import name_of
from llama_index_embed_plus.models.config_writer import write_config
from llama_index_embed_plus.models.files import MANIFEST, Settings, inside, onnx_files, read_json, write_json
from llama_index_embed_plus.models.hub import source_of
from llama_index_embed_plus.models.spec import EncoderSpec, read_spec, space_of, weights_of
from qdrant_tools.errors import UsageError
from qdrant_tools.files.trees import copy_tree, files_of
from qdrant_tools.files.written import refuse_link

FORMAT = 1
ADAPTER = "adapter"
HELD_OUT = "heldout"
TRAIN_REPORT = "train_report.json"
# computed inside the graph: to change one of these takes the weights
_IN_THE_GRAPH = ("pooling", "include_prompt", "head", "normalize", "dimension", "truncate_dim")
# no .bin and no .py: neither pickles nor code get into a copy
_COPIED = (".json", ".safetensors", ".txt", ".model", ".md", ".jinja")
_GRAPHS_AND_MAPS = (".onnx", ".data", ".npz")
LARGEST_TEXT = 1 << 26
_NOT_OURS = (".git", ".cache", ".gitattributes", ".gitignore", ".DS_Store", "Thumbs.db", "desktop.ini")
"""What hubs, version control and file managers put beside a model. It is never read, copied or sealed."""


@dataclass(frozen=True)
class Build:
    """One way to compute the vectors: `build` is its name, `file` the graph."""

    build: str
    file: Path


@dataclass(frozen=True)
class ArtifactManifest:
    """The contents of embed_plus.json. `builds`: name -> {"file", ...}. `sha256`: path -> hex, for every other file."""

    spec: EncoderSpec
    space: str
    weights: str
    """Hash of the weights that every build was made from (`spec.weights_of`). The weights may have been left out."""
    builds: Mapping[str, Mapping[str, Any]]
    sha256: Mapping[str, str]
    made_by: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    """The `name` and `revision` on a hub of what it was made from; empty if that was a folder."""
    format: int = FORMAT


def is_artifact(folder: Path) -> bool:
    """Whether `folder` carries a manifest."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> ArtifactManifest:
    """Read embed_plus.json. Raises DamagedModelError if it is missing, incomplete or of a newer format."""
    saved = read_json(folder, MANIFEST)
    if saved is None:
        raise DamagedModelError(f"{folder / MANIFEST} is missing: {str(folder)!r} is no artifact, or was not finished")
    if saved.get("format") != FORMAT:
        raise DamagedModelError(f"{folder / MANIFEST} has format {saved.get('format')!r}, this version reads {FORMAT}")
    settings = Settings(folder / MANIFEST, saved)
    spec = EncoderSpec.from_dict(settings.table("spec").values)
    builds = {name: settings.table("builds").table(name) for name in settings.table("builds").values}
    sha256, made_by, source = (settings.table(key) for key in ("sha256", "made_by", "source"))
    hashes = {name: sha256.text(name) or "" for name in sha256.values}
    files = [build.text("file") or "" for build in builds.values()]
    # the folder may come from somebody else
    for name in (*hashes, *files, spec.transformer_path, *(step.path for step in spec.head)):
        inside(folder, name)
    space, weights = settings.text("space"), settings.text("weights")
    if space is None or weights is None:
        raise DamagedModelError(f"{folder / MANIFEST} names no space or weights; write the artifact again")
    values = {name: build.values for name, build in builds.items()}
    return ArtifactManifest(spec, space, weights, values, hashes, made_by.values, _texts(source))


def verify(folder: Path, files: Iterable[str] | None = None) -> ArtifactManifest:
    """Compare the named files, or all, with the manifest. DamagedModelError names the first that differs.

    A file that the manifest does not list is found in either case.
    """
    manifest = read_manifest(folder)
    unlisted = sorted(set(_files(folder)) - set(manifest.sha256))
    if unlisted:
        raise DamagedModelError(
            f"{folder / unlisted[0]} is not part of the artifact: {MANIFEST} does not list it; remove it"
        )
    for name in sorted(manifest.sha256) if files is None else files:
        path = inside(folder, name)
        if name not in manifest.sha256:
            raise DamagedModelError(f"{path} is not part of the artifact: {MANIFEST} does not list it")
        if not path.is_file():
            raise DamagedModelError(f"{path} is missing; copy the artifact again")
        if hash_file(path) != manifest.sha256[name]:
            raise DamagedModelError(f"{path} is not the file that the manifest lists; copy the artifact again")
    return manifest


def write_manifest(
    folder: Path,
    *,
    spec: EncoderSpec | None = None,
    builds: Mapping[str, Mapping[str, Any]] | None = None,
    name: str = "",
    source: Mapping[str, str] | None = None,
) -> ArtifactManifest:
    """Describe `folder` as it is: read its spec, name its space, hash every file, and write embed_plus.json last.

    Args:
        spec: How to read the folder. Its files are changed to say so. None: as they say.
        builds: What to record beside the builds of an earlier manifest. `torch-fp32` is always there.
        name: What people call this model. "": the name it had, or the one of its weights if a `spec` is given.
        source: `origin_of` the model that it was made from. None: as an earlier manifest says.
    """
    # an artifact that gets an adapter keeps its builds and their parity reports
    before = read_manifest(folder) if is_artifact(folder) else None
    if spec is None:
        spec = read_spec(folder)
    elif not name:
        name, _ = name_of(folder / spec.transformer_path)
    spec = replace(spec, name=name or spec.name)
    write_config(folder, spec)
    recorded = {"torch-fp32": {"file": ""}, **(before.builds if before else {}), **(builds or {})}
    # Hashes come after every other file is in place: what is hashed is what will be opened.
    hashes = {path: hash_file(folder / path) for path in _files(folder)}
    weights = weights_of(folder, spec, ours=True)
    space = space_of(folder, spec, weights=weights)
    origin = source or (before.source if before else {})
    manifest = ArtifactManifest(spec, space, weights, recorded, hashes, versions(), origin)
    write_json(folder / MANIFEST, {**asdict(manifest), "spec": spec.as_dict()})
    return manifest


def origin_of(folder: Path) -> Mapping[str, str]:
    """Return the `name` and `revision` on a hub that a model comes from: its own, or those of what it was made from."""
    downloaded = source_of(folder)
    if downloaded is not None:
        return asdict(downloaded)
    return read_manifest(folder).source if is_artifact(folder) else {}


def verify_small_files(folder: Path) -> ArtifactManifest:
    """Verify all files but weights and graphs, which are hashed when they are used. Reads a megabyte or two."""
    heavy = (".safetensors", ".onnx", ".data")
    manifest = read_manifest(folder)
    return verify(folder, [name for name in sorted(manifest.sha256) if not name.endswith(heavy)])


def fits(manifest: ArtifactManifest, spec: EncoderSpec) -> bool:
    """Whether the graphs of an artifact compute what `spec` says. Prompts and lengths are not part of a graph."""
    return all(getattr(spec, name) == getattr(manifest.spec, name) for name in _IN_THE_GRAPH)


def onnx_build(
    folder: Path, manifest: ArtifactManifest | None, spec: EncoderSpec, *, build: str | None = None
) -> Build | None:
    """Return the ONNX graph to run, with its hash checked: `build`, or int8 before fp32. A hub folder has one graph."""
    if manifest is None:
        # without a manifest nothing says the precision: model.onnx counts as fp32
        file = next(onnx_files(folder), None)
        return Build("onnx-fp32", file) if file and build in (None, "onnx-fp32") else None
    for name in (build,) if build else ("onnx-int8", "onnx-fp32"):
        if name not in manifest.builds:
            continue
        if not fits(manifest, spec):
            raise UsageError(f"{folder}: its graph has other {', '.join(_IN_THE_GRAPH)} inside; use backend='torch'")
        graph = str(manifest.builds[name].get("file") or "")
        # Weights of a graph beyond 2 GB lie in a second file beside it.
        # A graph that the manifest does not list is passed on all the same: verify refuses it.
        verify(folder, [path for path in manifest.sha256 if path in (graph, f"{graph}.data")] or [graph])
        return Build(name, inside(folder, graph))
    return None


@dataclass(frozen=True)
class Refusal:
    """Why an artifact must not be promoted; `only_synthetic`: for want of real queries alone, which may be accepted."""

    reason: str
    only_synthetic: bool = False


def refusal(folder: Path) -> Refusal | None:
    """Say in one line why the artifact must not be promoted. None: it may be, or it was not trained here.

    train_report.json decides, by `promotable`, `only_synthetic` and `verdict`. Raises DamagedModelError if they are
    missing.
    """
    saved = read_json(folder, TRAIN_REPORT)
    if saved is None:
        return None
    report = Settings(folder / TRAIN_REPORT, saved)
    promotable, verdict = report.flag("promotable"), report.text("verdict")
    if promotable is None or not verdict:
        raise DamagedModelError(f"{folder / TRAIN_REPORT} has no verdict: train again")
    # reports of earlier versions know of no synthetic queries
    return None if promotable else Refusal(verdict, report.flag("only_synthetic") is True)


def copy_model(source: Path, target: Path, *, spec: EncoderSpec | None = None) -> None:
    """Copy the files of a model folder that this project reads: no pickle, no code, no other runtime's files.

    The copy's files say what `spec` says, also what was known only by the folder's name. None: as `source` is read.
    """
    # a graph or an adapter fits one spec, and the copy may get another
    left_out = {"onnx", "openvino", ADAPTER, HELD_OUT}

    def keep(relative: Path) -> bool:
        hidden = any(part.startswith(".") for part in relative.parts)
        ours = relative.name in (MANIFEST, TRAIN_REPORT)
        if relative.suffix not in _COPIED or hidden or ours or left_out & set(relative.parts[:-1]):
            return False
        # what is larger and holds no weights is data that lies beside the model
        return relative.suffix == ".safetensors" or (source / relative).stat().st_size <= LARGEST_TEXT

    copy_tree(source, target, keep=keep, error=DamagedModelError)
    _carry_report(source, target)
    write_config(target, spec or read_spec(source))


def copy_artifact(source: Path, target: Path) -> None:
    """Copy a verified artifact: what its manifest lists, without pickles and code, and the manifest.

    Raises as `verify`.
    """
    listed = {Path(name) for name in (*verify(source).sha256, MANIFEST) if Path(name).parts[0] != HELD_OUT}

    def keep(relative: Path) -> bool:
        return relative in listed and relative.suffix in (*_COPIED, *_GRAPHS_AND_MAPS)

    copy_tree(source, target, keep=keep, error=DamagedModelError)
    _carry_report(source, target)


def _carry_report(source: Path, target: Path) -> None:
    report = read_json(source, TRAIN_REPORT)
    if report is not None:
        write_json(target / TRAIN_REPORT, _without_texts(report))


def _without_texts(report: dict[str, Any]) -> dict[str, Any]:
    """A report of training without the held-out queries, which users typed. Their ids and figures stay."""
    proof = report.get("proof")
    if not isinstance(proof, dict):
        return report
    changes = {
        key: [{**row, "text": ""} if isinstance(row, dict) and "text" in row else row for row in proof[key]]
        for key in ("wins", "losses")
        if isinstance(proof.get(key), list)
    }
    return {**report, "proof": {**proof, **changes}}


def check_out(out: Path) -> None:
    """Refuse an `out` that is a link, or holds something other than an artifact: it would be replaced.

    Raises UsageError.
    """
    refuse_link(out, UsageError)
    if not out.name:
        raise UsageError(f"{str(out)!r} has no name of its own; give a new folder")
    if out.exists() and not is_artifact(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} exists and is no artifact; give a new folder")


WORK = "work-"
"""How the names of folders begin that whoever holds the folder around them removes."""


@contextmanager
def draft_folder(out: Path, *, inside: Path | None = None) -> Iterator[Path]:
    """Give a folder to write into, beside `out`. It becomes `out` if all went well; else nothing is left behind.

    inside: where to make it instead, on the same disk: what a kill leaves is removed there, if its owner removes what
        begins with `WORK`.

    Raises UsageError for an `out` that holds something other than an artifact.
    """
    check_out(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside `out`, because a rename does not reach another file system
    draft = _fresh(out) if inside is None else inside / f"{WORK}{uuid.uuid4().hex}"
    draft.mkdir(exist_ok=True)
    try:
        yield draft
        # Two renames: for a moment there is neither, but never a mixture of both.
        if out.exists():
            old = _fresh(out)
            os.replace(out, old / "old")
            os.replace(draft, out)
            shutil.rmtree(old)
        else:
            os.replace(draft, out)
    finally:
        # if all went well the draft has its new name by now, and there is nothing to remove
        shutil.rmtree(draft, ignore_errors=True)


def _fresh(out: Path) -> Path:
    """Make a folder of a new name that nobody could guess, with the permissions that the process gives to folders."""
    folder = out.parent / f".{out.name}-{uuid.uuid4().hex}"
    folder.mkdir()
    return folder


def hash_file(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of the packages that matter to what was written."""
    from importlib.metadata import PackageNotFoundError, version

    installed = {}
    packages = ("llama-index-embed-plus", "onnx", "onnxruntime", "tokenizers", "torch", "transformers")
    for name in (*packages, "sentence-transformers", "accelerate", "peft"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _files(folder: Path) -> list[str]:
    """The files that belong to an artifact, but for its manifest."""
    paths = (path.relative_to(folder) for path in files_of(folder, error=DamagedModelError))
    return [path.as_posix() for path in paths if path != Path(MANIFEST) and not _is_foreign(path)]


def _is_foreign(path: Path) -> bool:
    # "._name": what macOS writes beside each file on other file systems
    return path.parts[0] in _NOT_OURS or path.name in _NOT_OURS or path.name.startswith("._")


def _texts(settings: Settings) -> dict[str, str]:
    return {name: text for name in settings.values if (text := settings.text(name)) is not None}

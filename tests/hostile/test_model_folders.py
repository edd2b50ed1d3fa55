"""Model folders of strangers: nothing outside is copied or written; no code, no hub; one line for each refusal."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_folders import (
    ARRAYS,
    DEEP,
    DIGITS,
    ELSEWHERE,
    HEADERS,
    KINDS,
    LINKS,
    MODULES,
    SIZES,
    TOKENIZERS,
    change,
    header,
    tensor,
    with_tokenizer,
)
from models import TEXTS, save_model
from sentence_transformers import SentenceTransformer

from llama_index_embed_plus.encoders.adapter import QueryAdapter, attach_adapter
from llama_index_embed_plus.encoders.library_copy import opening
from llama_index_embed_plus.encoders.open import describe, identify, open_encoder
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models.files import inside, write_json
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.models.weights import tensors_of
from qdrant_tools.errors import NotSupportedError, PlusError, UsageError
from qdrant_tools.search.adapters import MAPS


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model as sentence-transformers saves it, and an artifact made of it."""
    folder = tmp_path_factory.mktemp("good")
    save_model(folder / "model", prompts={"query": "query : "})
    export_onnx(folder / "model", folder / "sealed")
    return folder


@pytest.fixture
def model(good, tmp_path):
    return shutil.copytree(good / "model", tmp_path / "received")


@pytest.fixture
def sealed(good, tmp_path):
    return shutil.copytree(good / "sealed", tmp_path / "sealed")


def refuses(folder, **arguments):
    """The message with which a folder is refused, one line that names it and is not long."""
    with pytest.raises(PlusError) as refusal:
        open_encoder(folder, **arguments).encode_queries(TEXTS)
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 1000
    return message


# --- nothing outside the folder


@pytest.mark.parametrize("spoil", LINKS.values(), ids=LINKS)
def test_links_are_refused_and_what_they_point_to_is_not_copied(model, outside, tmp_path, spoil):
    adapter = QueryAdapter.identity(32, identify(model).space)
    spoil(model, outside.folder)
    for call in (
        lambda: open_encoder(model),
        lambda: describe(model),
        lambda: export_onnx(model, tmp_path / "out"),
        lambda: attach_adapter(model, adapter, tmp_path / "out"),
    ):
        with pytest.raises(DamagedModelError, match=r"is a link|no regular file"):
            call()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".out", "out-"))]
    assert not (tmp_path / "out").exists()


def test_a_link_is_refused_by_the_commands(model, outside, tmp_path, refused):
    (model / "notes.txt").symlink_to(outside.secret)
    for arguments in (["describe", model], ["export", model, "--out", tmp_path / "out"]):
        assert "notes.txt is a link to" in refused(*arguments, like=("describe", "--help"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_manifest_does_not_list_is_refused_and_never_sealed(sealed, tmp_path):
    adapter = QueryAdapter.identity(32, identify(sealed).space)
    (sealed / "1_Pooling" / "more.json").write_text("{}")
    for call in (
        lambda: open_encoder(sealed),
        lambda: artifact.verify(sealed),
        lambda: attach_adapter(sealed, adapter, tmp_path / "out"),
    ):
        with pytest.raises(DamagedModelError, match=r"more\.json is not part of the artifact"):
            call()
    assert not (tmp_path / "out").exists()


def test_what_hubs_and_file_managers_put_beside_a_model_is_neither_refused_nor_copied(sealed, tmp_path):
    for name in (".gitattributes", ".DS_Store", "onnx/._model.onnx", ".git/config", ".cache/huggingface/x.lock"):
        (sealed / name).parent.mkdir(parents=True, exist_ok=True)
        (sealed / name).write_text("key: hunter2")
    attach_adapter(sealed, QueryAdapter.identity(32, identify(sealed).space), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names - {"embed_plus.json"} == set(artifact.verify(tmp_path / "out").sha256)
    assert not [name for name in names if "/." in f"/{name}"]
    assert open_encoder(tmp_path / "out").build == "onnx-fp32+adapter"


def test_a_folder_of_the_hub_cache_is_opened_and_copied_as_files(good, tmp_path):
    repository, commit = tmp_path / "models--owner--name", "a" * 40
    snapshot = repository / "snapshots" / commit
    for number, path in enumerate(sorted(path for path in (good / "model").rglob("*") if path.is_file())):
        blob, link = repository / "blobs" / str(number), snapshot / path.relative_to(good / "model")
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    export_onnx(snapshot, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    assert describe(tmp_path / "out").source == {"name": "owner/name", "revision": commit}
    attach_adapter(tmp_path / "out", QueryAdapter.identity(32, identify(snapshot).space), tmp_path / "further")
    assert describe(tmp_path / "further").source == {"name": "owner/name", "revision": commit}


def test_a_link_in_the_place_of_the_new_model_is_refused(good, outside, tmp_path):
    (tmp_path / "out").symlink_to(outside.folder)
    with pytest.raises(UsageError, match="is a link"):
        export_onnx(good / "model", tmp_path / "out")


def test_a_new_model_is_as_readable_as_other_files_and_nobody_knew_its_drafts_name(good, tmp_path, monkeypatch):
    umask = os.umask(0o022)
    try:
        with artifact.draft_folder(tmp_path / "out") as draft:
            assert len(draft.name) > 32
            artifact.copy_model(good / "model", draft)
            QueryAdapter.identity(32, "x").save(draft / "adapter")
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert modes == {0o644, 0o755}


# --- no code, no hub, no pickle


@pytest.mark.parametrize(("name", "values"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_setting_that_leads_elsewhere_is_refused(model, name, values):
    change(model, name, **values)
    with pytest.raises(NotSupportedError, match=name.replace(".", r"\.")) as refusal:
        identify(model)
    assert len(str(refusal.value)) < 600


def test_such_a_setting_is_refused_by_the_commands(model, tmp_path, refused):
    change(model, "config.json", attn_implementation="owner/kernel")
    line = refused("describe", model, like=("describe", "--help"))
    assert "asks by attn_implementation for 'owner/kernel'" in line
    refused("export", model, "--out", tmp_path / "out", like=("describe", "--help"))


@pytest.mark.parametrize("rows", MODULES.values(), ids=MODULES)
def test_modules_that_are_not_ours_are_refused(model, rows):
    (model / "modules.json").write_text(json.dumps(rows))
    assert "modules.json" in refuses(model) or "names" in refuses(model)


def test_plain_settings_are_accepted(model):
    before = open_encoder(model, backend="torch").encode_queries(TEXTS)
    # as transformers 4.46 wrote it, and models whose code lies in their repository
    change(model, "config.json", _attn_implementation_autoset=True)
    identify(model)
    change(model, "config.json", attn_implementation="torch")
    identify(model)
    change(model, "config.json", attn_implementation="flash_attention_2", backbone=None, use_timm_backbone=False)
    change(model, "sentence_bert_config.json", model_args={"trust_remote_code": True}, tokenizer_args={})
    np.testing.assert_allclose(open_encoder(model, backend="torch").encode_queries(TEXTS), before, atol=1e-6)


_CANARY = """
import os, socket, sys, json
from pathlib import Path
asked = []
def connect(self, address):
    asked.append(str(address))
    raise OSError("no network here")
socket.socket.connect = connect
from llama_index_embed_plus.encoders.open import open_encoder
from qdrant_tools.errors import PlusError
said = {}
for folder in map(Path, sys.argv[1:]):
    try:
        open_encoder(folder, backend="torch").encode_queries(["a dog"])
        said[folder.name] = "opened"
    except PlusError as error:
        said[folder.name] = "refused"
print(json.dumps({"asked": asked, "said": said}))
"""


def test_no_folder_asks_a_hub_or_runs_code(good, tmp_path):
    """A child process that may not connect opens one folder after another; each brings code that would leave a mark."""
    mark = tmp_path / "mark"
    folders = []
    for number, (name, values) in enumerate([*ELSEWHERE.values(), ("config.json", {"auto_map": {}})]):
        folder = shutil.copytree(good / "model", tmp_path / f"m{number}")
        change(folder, name, **values)
        code = f"open({str(mark)!r}, 'w')\nclass Model: pass\n"
        (folder / "modeling_mine.py").write_text(code)
        (folder / "owner").mkdir()
        (folder / "owner" / "__init__.py").write_text(code)
        change(
            folder, "config.json", auto_map={"AutoConfig": "modeling_mine.Model", "AutoModel": "modeling_mine.Model"}
        )
        folders.append(folder)
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", _CANARY, *map(str, folders)],
        capture_output=True,
        text=True,
        env={**environment, "HF_HOME": str(tmp_path / "home")},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["asked"] == []
    assert told["said"] == {folder.name: "refused" for folder in folders[:-1]} | {folders[-1].name: "opened"}
    assert not mark.exists()


# --- LoRA


def with_lora(folder: Path, **config) -> Path:
    """A folder of matrices for the tiny model, without its weights."""
    from safetensors.numpy import save_file

    inner = folder / "lora"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "received" / name, inner / ("base_config.json" if name == "config.json" else name))
    at = "base_model.model.encoder.layer.0.attention.self.query.lora_{}.weight"
    save_file(
        {at.format("A"): np.ones((2, 32), np.float32), at.format("B"): np.ones((32, 2), np.float32)},
        inner / "adapter_model.safetensors",
    )
    write_json(
        inner / "adapter_config.json",
        {
            "peft_type": "LORA",
            "r": 2,
            "lora_alpha": 2,
            "target_modules": ["query"],
            "layers_to_transform": [0],
            **config,
        },
    )
    return inner


@pytest.mark.parametrize("name", ["../received", "/etc", "~root", "//host/share", "somebody/model", "..", "."])
def test_the_base_of_a_lora_lies_in_its_folder_or_is_pinned(model, tmp_path, name):
    inner = with_lora(tmp_path, base_model_name_or_path=name)
    message = refuses(inner)
    assert "expected a folder in this one, or a hub name with the commit" in message


def test_a_lora_with_its_base_in_its_folder_is_opened(model, tmp_path):
    inner = with_lora(tmp_path, base_model_name_or_path="base")
    shutil.copytree(model, inner / "base")
    assert not np.allclose(open_encoder(inner).encode_queries(TEXTS), open_encoder(model).encode_queries(TEXTS))


ODD_LORA = {
    "a module to import": {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
    "a pickle": {"corda_config": {"cache_file": "/etc/passwd"}},
    "adapters of a hub": {"arrow_config": {"a": 1}},
    "layers that multiply": {"layer_replication": [[0, 1]] * 1000},
    "another start": {"init_lora_weights": "pissa"},
    "a pattern without end": {"target_modules": "(a+)+$"},
    "a pattern as a rank": {"rank_pattern": {"(a+)+$": 2}},
    "a rank of millions": {"r": 10**7},
    "a rank that is a text": {"r": "2"},
    "an endless scale": {"lora_alpha": 10**400},
    "layers that are texts": {"layers_to_transform": ["x"]},
}


@pytest.mark.parametrize("config", ODD_LORA.values(), ids=ODD_LORA)
def test_a_lora_that_asks_for_more_than_adding_matrices_is_refused(model, tmp_path, config):
    inner = with_lora(tmp_path, base_model_name_or_path="base", **config)
    shutil.copytree(model, inner / "base")
    assert "adapter_config.json" in refuses(inner)


def test_matrices_beside_weights_are_refused_also_in_an_artifact(model, sealed, tmp_path):
    """The manifest would vouch for weights that are not those which transformers runs."""
    inner = with_lora(tmp_path, base_model_name_or_path="base")
    for folder in (model, sealed):
        shutil.copy(inner / "adapter_config.json", folder)
        shutil.copy(inner / "adapter_model.safetensors", folder)
    manifest = json.loads((sealed / "embed_plus.json").read_text())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        manifest["sha256"][name] = artifact.hash_file(sealed / name)
    write_json(sealed / "embed_plus.json", manifest)
    for folder in (model, sealed):
        with pytest.raises(NotSupportedError, match="holds a LoRA adapter"):
            open_encoder(folder)


def test_a_copy_holds_no_code_no_pickle_and_no_data_that_lies_beside_the_model(sealed, tmp_path):
    for name in ("evil.py", "pytorch_model.bin", "training_args.bin"):
        (sealed / name).write_bytes(b"evil")
    with (sealed / "data.txt").open("wb") as file:
        file.truncate(1 << 30)
    artifact.copy_model(sealed, tmp_path / "plain")
    (sealed / "data.txt").unlink()
    artifact.write_manifest(sealed)  # a stranger's manifest may vouch for anything
    attach_adapter(sealed, QueryAdapter.identity(32, identify(sealed).space), tmp_path / "out")
    for folder in (tmp_path / "plain", tmp_path / "out"):
        assert not [path for path in folder.rglob("*") if path.suffix in (".py", ".bin") or path.name == "data.txt"]


# --- sizes, headers, numbers


@pytest.mark.parametrize("values", SIZES.values(), ids=SIZES)
def test_a_config_that_asks_for_more_than_its_weights_is_refused(model, values):
    change(model, "config.json", **values)
    with pytest.raises(DamagedModelError, match=r"config\.json (states|lists)"):
        identify(model)


def test_a_config_of_another_kind_of_model_makes_no_room_for_it(model):
    change(model, "config.json", model_type="mamba", state_size=10**9, expand=10**6)
    with pytest.raises(DamagedModelError, match=r"config\.json asks for .* weights"):
        open_encoder(model, backend="torch")


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_names_of_sizes_that_only_one_kind_of_model_has_make_no_room_either(model, values):
    change(model, "config.json", **values)
    began = time.process_time()
    with pytest.raises(DamagedModelError, match=r"config\.json asks for .* weights"):
        open_encoder(model, backend="torch")
    with pytest.raises(DamagedModelError), opening(model) as arguments:
        SentenceTransformer(str(model), device="cpu", **arguments)
    assert time.process_time() - began < 20


def test_a_kind_that_has_no_model_is_refused_without_a_search_for_one(model, capfd):
    change(model, "config.json", model_type="encoder-decoder", encoder={"model_type": "bert"})
    change(model, "config.json", decoder={"model_type": "bert"})
    assert "'encoder-decoder', which is no encoder of texts" in refuses(model, backend="torch")
    change(model, "config.json", model_type="bert", sub_configs={"a": {"b": "text of a stranger"}})
    refuses(model, backend="torch")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
def test_a_header_of_weights_that_cannot_be_is_one_error(model, content):
    (model / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refuses(model)


@pytest.mark.parametrize("content", [DEEP, DIGITS, "[]", '"x"', "\xff", '{"a": ' + "[0]," * 3_000_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "sentence_bert_config.json"])
def test_json_that_no_model_has_is_one_error(model, name, content):
    (model / name).write_text(content, "latin-1")
    assert name in refuses(model)


def test_hostile_numbers_are_refused_by_the_commands_without_memory(model, tmp_path, refused):
    like = ("describe", "--help")
    change(model, "config.json", num_hidden_layers=10**7)
    assert "num_hidden_layers=10000000" in refused("describe", model, like=like)
    assert "num_hidden_layers" in refused("export", model, "--out", tmp_path / "out", like=like)
    (model / "model.safetensors").write_bytes(header(b"[" * 3_000_000))
    assert "model.safetensors" in refused("describe", model, like=like)
    (model / "config.json").write_text(DEEP)
    assert "config.json" in refused("describe", model, like=like)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_header_ends_in_a_foreign_error(tmp_path_factory, data):
    entries = st.dictionaries(
        st.text(max_size=3),
        st.one_of(
            st.builds(
                tensor,
                st.lists(st.integers(-(2**70), 2**70), max_size=3),
                st.integers(-9, 99),
                st.integers(-9, 99),
                st.sampled_from(["F32", "F16", "I64", "F8_E4M3", "x", None]),
            ),
            st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=4),
        ),
        max_size=3,
    )
    content = header(data.draw(entries), size=data.draw(st.integers(0, 64)))
    cut = data.draw(st.integers(0, len(content)))
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
    try:
        found = tensors_of(file)
    except DamagedModelError:
        return
    for value in found.values():
        assert 0 <= value.start <= value.stop <= len(content)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "C:x", "a\\b", "a\0b", "a\nb", "x" * 300, "\ud800"]
)
def test_a_name_that_leads_out_or_that_no_file_has_is_refused(tmp_path, name):
    with pytest.raises(DamagedModelError, match="expected a path inside the folder"):
        inside(tmp_path, name)


SPECS = {
    "a dimension of terabytes": {"dimension": 10**12},
    "another dimension": {"dimension": 16},
    "tokens without end": {"max_tokens": 10**18},
    "an odd step": {"head": [{"kind": "import", "path": "os"}]},
    "a step elsewhere": {"head": [{"kind": "dense", "path": "../x"}]},
    "a path that is a number": {"head": [{"kind": "dense", "path": 7}]},
    "sources that are numbers": {"sources": {"pooling": 7}},
    "a name with an escape": {"name": "a\x1b[2J"},
    "pooling by a number": {"pooling": [7]},
    "pooling a thousand times": {"pooling": ["mean"] * 1000},
    "a field of another type": {"normalize": "yes"},
}


@pytest.mark.parametrize("values", SPECS.values(), ids=SPECS)
def test_a_manifest_that_lies_is_refused(sealed, values):
    manifest = json.loads((sealed / "embed_plus.json").read_text())
    manifest["spec"].update(values)
    (sealed / "embed_plus.json").write_text(json.dumps(manifest))
    refuses(sealed)


# --- tokenizers, adapters, graphs


@pytest.mark.parametrize("parts", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_fails_is_one_error_and_prints_nothing(model, capfd, parts):
    with_tokenizer(model, **parts)
    capfd.readouterr()
    message = refuses(model)
    assert "tokenizer" in message
    assert capfd.readouterr().err == ""


def test_what_a_tokenizer_saved_of_padding_and_cutting_makes_no_memory(model):
    before = open_encoder(model).encode_queries(TEXTS)
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    cutting = {"direction": "Right", "max_length": 10**18, "strategy": "LongestFirst", "stride": 10**18}
    with_tokenizer(model, padding=padding, truncation=cutting)
    np.testing.assert_array_equal(open_encoder(model).encode_queries(TEXTS), before)


@pytest.mark.parametrize("made", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("kind", MAPS)
def test_an_archive_of_arrays_that_lies_is_one_error(tmp_path, made, kind):
    QueryAdapter.identity(4, "x", kind=kind).save(tmp_path)
    (tmp_path / "adapter.npz").write_bytes(made())
    with pytest.raises(DamagedModelError, match=r"adapter\.npz cannot be read") as refusal:
        QueryAdapter.load(tmp_path)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 500


def test_an_adapter_that_claims_terabytes_is_refused_by_the_commands(model, refused):
    QueryAdapter.identity(32, identify(model).space).save(model / "adapter")
    (model / "adapter" / "adapter.npz").write_bytes(ARRAYS["4 TB"]())
    assert "adapter.npz cannot be read" in refused("describe", model, like=("describe", "--help"))


# --- what is carried on


def test_an_exported_model_keeps_its_verdict_and_no_text_of_a_held_out_query(model, tmp_path):
    change_ = {"id": "q1", "text": "my private question", "before": 0.0, "after": 1.0}
    report = {"promotable": False, "verdict": "it does harm", "proof": {"wins": [change_], "losses": [change_]}}
    write_json(model / "train_report.json", report)
    export_onnx(model, tmp_path / "out")
    attach_adapter(tmp_path / "out", QueryAdapter.identity(32, identify(model).space), tmp_path / "further")
    for folder in (tmp_path / "out", tmp_path / "further"):
        assert artifact.refusal(folder) == artifact.Refusal("it does harm")
        assert "private" not in (folder / "train_report.json").read_text()
        assert "q1" in (folder / "train_report.json").read_text()
        artifact.verify(folder)


@pytest.mark.parametrize("revision", ["../../x", "a\nb", "a b", "", "-" * 300])
def test_a_revision_is_no_path(revision):
    with pytest.raises((UsageError, PlusError)):
        resolve("owner/name", revision=revision or "..")


def test_a_revision_can_be_demanded_in_the_name():
    with pytest.raises(PlusError, match=r"'owner/name' at revision 'v1' is not on this machine"):
        resolve("owner/name@v1")
    with pytest.raises(UsageError, match="give one of them"):
        resolve("owner/name@v1", revision="v2")


@pytest.mark.parametrize("name", ["x" * 5000, "~nobody-of-this-name/x", "a\0b", "\ud800", "//host/share"])
def test_a_name_that_is_no_path_is_no_model(name):
    with pytest.raises(PlusError) as refusal:
        resolve(name)
    assert len(str(refusal.value)) < 600


def test_a_folder_that_is_no_model_is_refused_before_it_is_walked_through(tmp_path, outside):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(outside.secret)
    # not the link, which would only be found by looking at everything
    with pytest.raises(DamagedModelError, match=r"config\.json is missing"):
        resolve(tmp_path / "home")

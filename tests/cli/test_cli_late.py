"""Late chunking on the command line: asked for once, found out afterwards, refused where a passage would come alone."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from command_line import error_line
from models import SENTENCE, save_model

from llama_index_embed_plus.encoders.late import LateEncoder, with_late_chunking
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.serving.embedding import PlusEmbedding
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import NotSupportedError

WORDS = [word for word in SENTENCE.split() if word.isalpha()]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    save_model(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    notes = tmp_path / "notes"
    notes.mkdir()
    for name in range(6):
        words = [WORDS[(3 * name + 7 * place) % len(WORDS)] for place in range(60)]
        sentences = [" ".join(words[start : start + 5]) + " ." for start in range(0, 60, 5)]
        (notes / f"note{name}.txt").write_text("\n\n".join(sentences))
    return notes


def test_a_collection_is_made_with_late_chunking_and_every_command_finds_that_out(run, model, folder):
    code, out, err = run("index", "docs", folder, "--model", model, "--late")
    assert code == 0 and " 0 updated," in out, err
    passages = int(out.split(": ")[1].split()[0])
    assert passages > 30, "passages are parts of what is read together"

    code, out, _ = run("index", "docs", folder, "--model", model)
    assert code == 0 and f"{passages} unchanged" in out
    code, out, _ = run("search", "docs", "what is the river ?", "--model", model, "--json", "-k", 3)
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(hits) == 3 and all("late_window" in hit["metadata"] for hit in hits)

    (folder / "note0.txt").write_text((folder / "note0.txt").read_text() + "\n\na blue stone .")
    code, out, _ = run("index", "docs", folder, "--model", model)
    added, updated = (int(out.split(f" {word}")[0].split()[-1]) for word in ("added", "updated"))
    assert code == 0 and 1 <= added <= 8 and updated <= 8, "the windows around the edit, and no other document"


def test_a_collection_made_without_refuses_it_and_the_other_way_round(run, model, folder):
    assert run("index", "plain", folder, "--model", model)[0] == 0
    code, _, err = run("index", "plain", folder, "--model", model, "--late")
    assert code == 1 and "holds vectors of" in error_line(err)


def test_an_adapter_is_fitted_for_it_and_the_artifact_opens_with_it(run, model, folder, tmp_path):
    run("index", "docs", folder, "--model", model, "--late")
    _, out, _ = run("search", "docs", "a", "--model", model, "--json", "-k", 30)
    hits = [json.loads(line) for line in out.splitlines()]
    rows = [
        {"query": f"{WORDS[n % 20]} {WORDS[n // 2]}", "positives": [{"id": h["id"], "text": h["text"]}]}
        for n, h in enumerate(hits)
    ]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))

    code, _, err = run(
        "train",
        "docs",
        "--model",
        model,
        "--examples",
        tmp_path / "examples.jsonl",
        "--method",
        "adapter",
        "--out",
        "adapted",
    )

    assert code == 0, err
    adapted = open_encoder(tmp_path / "adapted")
    assert isinstance(adapted, LateEncoder) and adapted.adapter is not None
    code, out, err = run("search", "docs", "a dog", "--model", "adapted", "--json")
    assert code == 0 and out, err
    code, _, err = run("index", "docs", folder, "--model", "adapted")
    assert code == 0, err

    code, _, err = run(
        "train",
        "docs",
        "--model",
        model,
        "--examples",
        tmp_path / "examples.jsonl",
        "--method",
        "full",
        "--out",
        "tuned",
    )
    assert code == 1 and "train the model without it" in error_line(err)
    assert not (tmp_path / "tuned").exists()


def test_a_promotion_to_it_says_to_index_instead(run, model, folder, tmp_path):
    run("index", "docs", folder, "--model", model, "--late")
    run("index", "plain", folder, "--model", model)
    run("collection", "alias", "serving", "plain")
    _, out, _ = run("search", "docs", "a", "--model", model, "--json", "-k", 30)
    hits = [json.loads(line) for line in out.splitlines()]
    rows = [
        {"query": f"{WORDS[n % 20]} {WORDS[n // 2]}", "positives": [{"id": h["id"], "text": h["text"]}]}
        for n, h in enumerate(hits)
    ]
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run("train", "docs", "--model", model, "--examples", "examples.jsonl", "--method", "adapter", "--out", "late")

    code, _, err = run("promote", "run", "serving", "--model", "late")

    assert code == 1 and "index the documents into a new collection" in error_line(err)


def test_models_that_cannot_are_refused(run, folder, tmp_path, capsys):
    save_model(tmp_path / "first", pooling="cls")
    save_model(tmp_path / "decoder", family="qwen2")
    capsys.readouterr()
    code, _, err = run("index", "docs", folder, "--model", tmp_path / "first", "--late")
    assert code == 1 and "not the mean: index without late chunking" in error_line(err)
    code, _, err = run("index", "docs", folder, "--model", tmp_path / "decoder", "--late")
    assert code == 1 and "only what comes before" in error_line(err)


def test_llamaindex_asks_such_a_collection_and_embeds_no_text_alone(run, model, folder):
    run("index", "docs", folder, "--model", model, "--late")
    embedding = PlusEmbedding(model, late=True)

    with closing(connect("embed-plus-data")) as client:
        docs = CollectionManager(client).open("docs", with_late_chunking(open_encoder(model)))
        assert embedding.space == docs.space
        assert docs.search_vectors([embedding.get_query_embedding("what is the river ?")], k=3)[0]
    with pytest.raises(NotSupportedError, match="index the documents again"):
        embedding.get_text_embedding("a dog")
    assert PlusEmbedding(model).space != embedding.space

"""Files -> passages."""

from __future__ import annotations

import json

import pytest

from llama_index_embed_plus.documents import cut, read_passages
from qdrant_tools.errors import InputError


def test_a_folder_of_text_files_becomes_passages_named_after_their_files(tmp_path):
    (tmp_path / "b.md").write_text("# Bees\n\nBees make honey.")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.txt").write_text("Ants dig.")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("not this")
    passages = list(read_passages(tmp_path))
    assert [(p.id, p.text) for p in passages] == [
        ("b.md#0", "# Bees\n\nBees make honey."),
        ("deep/a.txt#0", "Ants dig."),
    ]
    assert passages[1].metadata == {"source": "deep/a.txt", "part": 0}


def test_a_long_text_is_cut_at_blank_lines_and_no_word_is_lost():
    text = "\n\n".join(" ".join(f"w{p}.{i}" for i in range(70)) for p in range(5))
    parts = list(cut(text, max_words=150))
    assert [len(part.split()) for part in parts] == [140, 140, 70]
    assert " ".join(parts).split() == text.split()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("我爱北京。天安门上太阳升！" * 2, ["我爱北京。", "天安门上太阳升！", "我爱北京。", "天安门上太阳升！"]),
        ("東京都は日本の首都です", ["東京都は日本の首都", "です"]),
        ("ภาษาไทยไม่มีช่องว่าง", ["ภาษาไทยไม่", "มีช่องว่าง"]),
        ("Use iPhone手机 now and 我爱你们 too", ["Use iPhone手机 now and 我爱你们", "too"]),
        ("한국어는 띄어쓰기를 한다", ["한국어는 띄어쓰기를 한다"]),
    ],
)
def test_a_text_without_spaces_is_cut_at_its_sentences_and_loses_nothing(text, parts):
    found = list(cut(text, max_words=9))
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert found == parts


def test_a_paragraph_longer_than_the_limit_is_cut_between_words():
    parts = list(cut(" ".join(map(str, range(100))), max_words=30))
    assert [len(part.split()) for part in parts] == [30, 30, 30, 10]


def test_jsonl_rows_are_passages_and_a_beir_title_comes_first(tmp_path):
    rows = [{"id": "a", "text": "one", "metadata": {"year": 1}}, {"_id": "b", "title": "T", "text": "two"}]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    first, second = read_passages(path)
    assert (first.id, first.text, dict(first.metadata)) == ("a", "one", {"year": 1})
    assert (second.id, second.text) == ("b", "T two")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "corpus.jsonl:2: not JSON"),
        ("[1]", "corpus.jsonl:2: a list, expected an object"),
        ('{"text": "x"}', "corpus.jsonl:2: id is None"),
        ('{"id": "x", "text": " "}', "corpus.jsonl:2: text is ' '"),
        ('{"id": "x", "text": "y", "metadata": 3}', "corpus.jsonl:2: metadata is a int"),
    ],
)
def test_a_bad_row_is_an_error_with_file_and_line(tmp_path, line, message):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "ok", "text": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        list(read_passages(path))


def test_a_folder_without_text_and_a_path_that_is_not_there_are_errors(tmp_path):
    (tmp_path / "only.png").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no text to index"):
        read_passages(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_passages(tmp_path / "nowhere")


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8 text \(byte 3\)"):
        list(read_passages(tmp_path))

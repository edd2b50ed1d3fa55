"""What indexing a source would do, told before: its counts are right, its advice fits, and nothing is embedded."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from command_line import error_line
from languages import DECLARATION

from llama_index_embed_plus.documents import languages as languages_module
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.inspect import FRAGMENT_WORDS, MOST_KINDS, declared_languages, inspect_source
from llama_index_embed_plus.documents.languages import UNKNOWN, language_of
from llama_index_embed_plus.documents.passages import passages_of
from llama_index_embed_plus.documents.reading import Source
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.open import open_encoder, open_tokenizer
from qdrant_tools.search.words import split


@pytest.fixture(scope="module")
def tokens(minilm):
    return open_tokenizer(minilm)


@pytest.fixture
def messy(tmp_path):
    """A small folder as people have it."""
    folder = tmp_path / "messy"
    (folder / "notes").mkdir(parents=True)
    for language, text in DECLARATION.items():
        (folder / f"{language}.txt").write_text(text, encoding="utf-8")
    (folder / "copy.md").write_text("# Rights\n\n" + DECLARATION["en"])
    (folder / "long.md").write_text("# Rights\n\n" + "\n\n".join(f"{i}. {DECLARATION['en']}" for i in range(40)))
    (folder / "notes" / "latin.txt").write_bytes("Über die Würde wird hier viel gestritten.".encode("latin-1"))
    (folder / "notes" / "short.txt").write_text("ok")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    (folder / "empty.txt").write_bytes(b"")
    (folder / ".hidden").write_text("hidden")
    (folder / "rows.jsonl").write_text("\n".join(json.dumps({"id": str(i), "text": f"row {i}"}) for i in range(30)))
    return folder


def inspected(folder, tokens, **cut):
    return inspect_source(Source(folder), Cutter(token_counter(tokens), CutSettings(**cut)), model=tokens.folder)


def test_a_tokenizer_alone_counts_as_the_encoder_does(minilm, tokens):
    texts = [*DECLARATION.values(), "x" * 5000, "a"]
    with_model, alone = token_counter(open_encoder(minilm)), token_counter(tokens)
    assert alone.room == with_model.room and alone.count(texts) == with_model.count(texts)


def test_counts_of_a_messy_folder_are_right(messy, tokens):
    report = inspected(messy, tokens)
    assert report.files == len(DECLARATION) + 5
    assert report.kinds == {".txt": len(DECLARATION) + 2, ".md": 2, ".jsonl": 1}
    assert report.cut.documents == len(DECLARATION) + 4 + 30
    assert report.cut.truncated == 0 and report.cut.longest <= report.room == 254
    assert report.cut.quantile(0.5) <= report.cut.quantile(0.95) <= report.cut.longest
    assert report.fragments == 0, "the cutter makes none"
    few = [text for text in DECLARATION.values() if split(text).length < FRAGMENT_WORDS]
    assert 0 < len(few) < len(DECLARATION) and report.short == len(few) + 30 + 2, "with the rows and two notes"
    assert report.languages["en"] == 3 and report.languages["ja"] == 1 and report.languages["de"] == 2
    assert report.languages[UNKNOWN] == 31
    assert report.encodings == {"cp1252": 1}
    assert {each.reason for each in report.skipped} == {"no reader", "empty"} and len(report.skipped) == 3
    assert report.as_row()["tokens"]["total"] == report.cut.total > 2000


def test_the_report_is_that_of_indexing(messy, tokens):
    report = inspected(messy, tokens)
    encoder = token_counter(tokens)
    texts = [passage.text for passage in passages_of(Source(messy), Cutter(encoder))]
    assert report.cut.passages == len(texts) and report.cut.total == sum(encoder.count(texts))


def test_advice_fits_what_was_found(messy, tokens):
    advice = "\n".join(inspected(messy, tokens).suggestions())
    assert re.search(r"20 documents are in other languages \(de 2, .*than the model's card names \(en\)", advice)
    assert "of the text is in no vector" not in advice
    whole = inspected(messy, tokens, whole=True)
    assert whole.cut.truncated >= 1 and whole.cut.lost > 0
    assert "of the text is in no vector" in whole.suggestions()[0]
    report = inspected(messy, tokens)
    assert len(whole.as_row()["suggestions"]) == len(report.suggestions()) + 1


def test_texts_that_say_the_same_are_counted(tmp_path, tokens):
    for name, text in enumerate(["Bees make honey.", "BEES  make honey", "Bees make\nhoney!", "Bees fly."]):
        (tmp_path / f"{name}.txt").write_text(text)
    report = inspected(tmp_path, tokens)
    assert report.repeated == 2 and report.short == 4


def test_a_folder_with_any_number_of_kinds_has_a_small_report(tmp_path, tokens):
    for number in range(MOST_KINDS + 20):
        (tmp_path / f"a.kind{number}").write_text("Some words of a text.")
    report = inspected(tmp_path, tokens)
    assert len(report.kinds) == MOST_KINDS + 1 and report.kinds["others"] == 20


@pytest.mark.parametrize("language", DECLARATION)
def test_the_language_of_real_texts(language):
    assert language_of(DECLARATION[language]) == language


def test_parts_of_sentences_are_never_taken_for_another_language():
    parts = [
        (name, part) for name, text in DECLARATION.items() for part in re.split(r"(?<=[.,。、،])\s*", text) if part
    ]
    told = [(language, language_of(part)) for language, part in parts]
    assert all(found in (language, UNKNOWN) for language, found in told)
    assert sum(found == language for language, found in told) > 0.85 * len(told)


NO_PROSE = ["", "ok", "Summary", "12 34 99 1999-02-03 " * 20, "x = {1: [2, 3], 4: (5, 6)}\n" * 9, "\ud800" * 99, "人人"]


@pytest.mark.parametrize("text", NO_PROSE)
def test_what_is_too_short_or_no_prose_has_no_language(text):
    assert language_of(text) == UNKNOWN


def test_without_the_library_scripts_are_told(monkeypatch, messy, tokens):
    monkeypatch.setattr(languages_module, "find_spec", lambda name: None)
    scripts = {language: language_of(text) for language, text in DECLARATION.items()}
    assert {scripts[name] for name in ("en", "de", "vi", "fi")} == {"Latin script"}
    assert [scripts[name] for name in ("ru", "el", "ar", "zh", "ja", "ko", "hi")] == [
        f"{script} script" for script in ("Cyrillic", "Greek", "Arabic", "Han", "Japanese", "Hangul", "Devanagari")
    ]
    assert "pip install 'llama-index-embed-plus[files]'" in inspected(messy, tokens).suggestions()[-1]


CARDS = [
    ("---\nlanguage: en\nlicense: mit\n---\ntext", ("en",)),
    ("---\ntags:\n- x\nlanguage:\n- en\n- de\n- zh-CN\nlicense: mit\n---\n", ("en", "de", "zh-CN")),
    ("---\nlanguage: [en, fr]\n---\n", ("en", "fr")),
    ("# no front matter\nlanguage: en\n", ()),
    ("---\nlicense: mit\n---\nlanguage: en", ()),
    ("---\nlanguage:\n---\n", ()),
]


@pytest.mark.parametrize(("card", "expected"), CARDS)
def test_the_languages_that_a_models_card_names(tmp_path, card, expected):
    (tmp_path / "README.md").write_text(card)
    assert declared_languages(tmp_path) == expected
    assert declared_languages(tmp_path / "nowhere") == declared_languages(None) == ()


def test_the_command_tells_it_to_people_and_as_json(run, messy):
    code, out, _ = run("inspect", messy)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith(f"messy: {len(DECLARATION) + 5} files, {len(DECLARATION) + 34} documents, ")
    told = {line.split()[0]: line for line in lines[1:]}
    assert "longest" in told["tokens"] and told["truncated"].split() == ["truncated", "nothing"]
    assert "no reader: a.png, b.png (a picture" in out and "cp1252 1" in told["encodings"]
    code, out, _ = run("inspect", messy, "--json", "--chunk-tokens", 64, "--exclude", "*.jsonl", "--source", "mine")
    row = json.loads(out)
    assert code == 0 and row["source"] == "mine" and row["tokens"]["max"] <= 64 == row["tokens"]["most"]
    assert row["documents"] == len(DECLARATION) + 4 and len(row["skipped"]) == 3


def test_nothing_to_index_is_told_with_what_was_skipped(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    code, out, err = run("inspect", "pictures")
    assert code == 1 and "no reader: a.png" in out and "pictures holds no text to index" in error_line(err)
    for wrong, expected in (
        (("nowhere",), 1),
        (("pictures", "--chunk-tokens", 0), 2),
        (("pictures", "--context", "all"), 2),
        (("pictures", "--model", "no/such-model"), 1),
    ):
        code, out, err = run("inspect", *wrong)
        assert (code, out) == (expected, "") and error_line(err)


def test_no_library_that_runs_models_is_loaded(messy, minilm):
    code = (
        "import sys; from llama_index_embed_plus.cli import main\n"
        f"sys.argv = ['embed-plus', 'inspect', {str(messy)!r}, '--model', {str(minilm)!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "print(sorted({'torch', 'onnxruntime', 'transformers', 'llama_index'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"

"""The bytes of a text -> its encoding and its lines."""

from __future__ import annotations

from io import BytesIO

import pytest
from folder import LANGUAGES
from hypothesis import given
from hypothesis import strategies as st

from llama_index_embed_plus.documents.files.encodings import LONGEST_LINE, encoding_of, lines_of, require_encoding
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import UsageError

MORE = {
    "uk": "Це текст українською мовою про бджіл, їхній мед і вулик.",
    "cs": "Příliš žluťoučký kůň úpěl ďábelské ódy, a včely to slyšely.",
    "el": "Οι μέλισσες φτιάχνουν μέλι στην κυψέλη και ο άνθρωπος το μαζεύει.",
    "tr": "Arılar kovanda bal yapar ve insan onu toplar. Şişli'de güneş doğdu, ığdır.",
    "he": "הדבורים מכינות דבש בכוורת והאדם אוסף אותו",
    "th": "ผึ้งทำน้ำผึ้งในรังและมนุษย์เก็บมัน",
    "tw": "這是一段中文文字，關於蜜蜂和蜂蜜。臺北是一座城市。",
}
TEXTS = {**{language: " ".join(texts) for language, texts in LANGUAGES.items()}, **MORE}
OF_BYTES = {
    "fr": ("cp1252", "iso8859-15"), "de": ("cp1252",), "es": ("cp1252",), "pl": ("cp1250", "iso8859-2"),
    "cs": ("cp1250",), "ru": ("cp1251", "koi8-r", "cp866", "iso8859-5"), "uk": ("cp1251", "koi8-u"), "el": ("cp1253",),
    "tr": ("cp1254",), "he": ("cp1255",), "ar": ("cp1256",), "th": ("tis-620",), "zh": ("gb18030", "gb2312"),
    "tw": ("big5",), "ja": ("shift_jis", "euc_jp", "iso2022_jp"), "ko": ("euc_kr",),
}  # fmt: skip
WIDE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def text_of(content: bytes, given=None) -> str:
    stream = BytesIO(content)
    return "\n".join(lines_of(stream, encoding_of(stream, given)))


@pytest.mark.parametrize(
    ("language", "encoding"), [(language, name) for language, names in OF_BYTES.items() for name in names]
)
def test_a_text_in_the_encoding_of_its_language_is_read(language, encoding):
    text = TEXTS[language]
    for repeats in (1, 30):
        written = "\n".join([text] * repeats)
        assert text_of(written.encode(encoding)) == written


@pytest.mark.parametrize(
    "text",
    [
        "It\u2019s late.",
        "The oven was at 200\u00b0 and the cake rose.",
        "\u201cHello,\u201d he said \u2013 and left\u2026",
        "Price: \u20ac5 or \u00a34 \u00a9 2020",
        "5 \u00b5m \u00b1 2",
        "Die Königin der Bienen überwintert im Stock.",
        "Grüße aus Köln",
        "Le café de la gare est fermé à midi.",
        "Não há informação disponível.",
    ],
)
def test_a_western_sentence_with_a_few_signs_is_not_taken_for_another_script(text):
    assert text_of(text.encode("cp1252")) == text


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("language", TEXTS)
def test_unicode_is_read_with_and_without_its_mark(language, encoding):
    assert text_of(TEXTS[language].encode(encoding)) == TEXTS[language]


def test_words_that_are_not_ascii_may_stand_far_below():
    assert text_of(("plain text\n" * 100_000 + TEXTS["de"]).encode("cp1252")).endswith(TEXTS["de"])


def test_the_same_bytes_give_the_same_encoding():
    content = TEXTS["ru"].encode("koi8-r")
    assert len({encoding_of(BytesIO(content)) for _ in range(20)}) == 1


def test_a_few_bad_bytes_in_utf8_are_replaced_and_that_is_said():
    content = TEXTS["ru"].encode() * 20
    stream = BytesIO(content[:500] + b"\xff" + content[500:-1])
    found = encoding_of(stream)
    assert found.note == "utf-8, with replacements"
    assert "\n".join(lines_of(stream, found)).count("\ufffd") <= 4


def test_a_given_encoding_counts_or_is_refused():
    assert text_of(TEXTS["ru"].encode("koi8-r"), given="koi8_r") == TEXTS["ru"]
    assert text_of(TEXTS["fr"].encode("cp1252"), given="cp1251") != TEXTS["fr"]
    with pytest.raises(UnreadFileError, match="not utf-8: leave --encoding out") as raised:
        text_of(TEXTS["fr"].encode("cp1252"), given="utf-8")
    assert raised.value.reason == "encoding"
    assert require_encoding("UTF8") == "utf-8"
    for name in ("klingon", "rot13", "base64", "", "hex", "a\0b"):
        with pytest.raises(UsageError, match="expected one that Python knows"):
            require_encoding(name)


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 8, bytes(100), b"\x01\x02\x03" * 50], ids=("all", "nul", "low")
)
def test_what_is_no_text_has_no_encoding(content):
    with pytest.raises(UnreadFileError, match="binary") as raised:
        text_of(content)
    assert raised.value.reason == "no reader"


def test_bytes_in_no_encoding_are_refused_with_a_way_out():
    with pytest.raises(UnreadFileError, match="give it with --encoding") as raised:
        text_of(bytes(range(128, 256)) * 8)
    assert raised.value.reason == "encoding"


def test_colours_and_stray_controls_are_not_text():
    assert text_of(b"\x1b[31mred\x1b[0m and \x1b[1;32mgreen\x07\n" * 20).split("\n")[0] == "red and green"
    assert text_of(b"a log with one \0 in it\n" * 20).split("\n")[0] == "a log with one  in it"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=50), max_size=20))
def test_lines_are_those_that_were_written_whatever_ends_them(lines):
    written = [line for line in lines if line.isprintable()]
    for end in ("\n", "\r\n", "\r"):
        read = list(lines_of(BytesIO(end.join(written).encode()), encoding_of(BytesIO(b"x"), "utf-8")))
        assert [line for line in read if line] == [line for line in written if line]


@given(st.integers(1, 5), st.integers(0, 3))
def test_a_line_of_any_length_is_given_in_parts_and_nothing_is_lost(times, words):
    line = (" ".join(["word"] * words) + "x" * 1000) * (100 * times)
    stream = BytesIO(line.encode())
    parts = list(lines_of(stream, encoding_of(stream)))
    assert "".join(parts) == line and max(map(len, parts)) <= LONGEST_LINE

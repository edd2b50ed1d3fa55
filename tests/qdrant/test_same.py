"""What is the same query and the same id, and what is not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdrant_tools.log import dropped, hashed
from qdrant_tools.log.records import is_redacted
from qdrant_tools.same import folded, id_key, query_key

SIGNS = list("()[]`- \t\x1f\u00a0.,!?\"':;-+#/@%()¿¡“”’–«»。？،।…") + list(
    "ABcdİıßſςéｆﬁ½日\u0301\u0307\u0323\u00ad\u200b\u1160\u3164"
)
TEXTS = st.text(st.one_of(st.sampled_from(SIGNS), st.characters()), max_size=12)
FORMS = st.sampled_from(("NFC", "NFD", "NFKC", "NFKD"))


@pytest.mark.parametrize(
    "spelling",
    [
        "how do i reset my password",
        "  HOW do I\treset\u00a0my  password ?",
        "¿How do I reset my password?!",
        "“How do I reset my password”",
        "«How do I reset my password»…",
        "Ｈｏｗ ｄｏ Ｉ ｒｅｓｅｔ ｍｙ ｐａｓｓｗｏｒｄ？",
        "How do I reset my pass\u00adword?",
        "\ufeffHow do I reset my\u200b password?\u200f",
        "how do I, reset my password.",
        "How do I 'reset' my password;",
        "How do I reset my password…",
        "How do I reset my password。",
        "How do I reset my password؟",
        "(How do I reset my password?)",
        "- how do I reset my password",
        "• How do I reset my password -",
        "...how do I reset my password",
        "… “[how do I reset my password]”",
        "How do I reset `my` password",
    ],
)
def test_spellings_of_one_query(spelling):
    assert query_key(spelling) == query_key("How do I reset my password?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zürich Öffnungszeiten", unicodedata.normalize("NFD", "ZÜRICH öffnungszeiten")),
        ("STRASSE", "straße"),
        ("İstanbul gezi", "istanbul gezi"),
        ("ΟΔΟΣ", "οδός".replace("ό", "ο")),
        ("don’t panic", "Don't panic!"),
        ("e‑mail – help", "e-mail - help"),
        ("Is beta‐thalassemia inherited ?", "is Beta thalassemia inherited"),
        ("cri-du-chat", "Cri du chat"),
        ("vitamin-D x-ray", "vitamin d X ray"),
        ("mot de passe oublié ?", "Mot de passe oublié?"),
        ("ﬁle ①", "file 1"),
        ("पुनः प्रयास।", "पुनः प्रयास"),
        ("비밀번호 재설정", unicodedata.normalize("NFD", "비밀번호 재설정")),
        ("ﾊﾟｽﾜｰﾄﾞ", "パスワード"),
        ("می‌خواهم", "میخواهم"),
        ("❤️ emoji", "❤ emoji"),
    ],
)
def test_scripts_and_signs_that_make_no_difference(one, other):
    assert query_key(one) == query_key(other)


@pytest.mark.parametrize(
    "apart",
    [
        ["C++", "C#", "C", "C--", "@c", "#c"],
        [".NET", "NET", "#net"],
        ["a/b", "a b", "ab", "a-b", "a+b", "a_b"],
        ["resume", "résumé"],
        ["what does ? mean", "what does ! mean", "what does mean"],
        ["??", "!!", "", "."],
        ["make honey do bees", "do bees make honey"],
        ["3.5", "35", "3,5", "3 5"],
        ["print()", "print"],
        ["node.js", "node js"],
        ["50%", "50"],
        ["-5", "5"],
        ["[a-z]", "a-z"],
        ["(a) or (b)", "a) or (b"],
        ["SELECT *", "select", "* select"],
        ["cd ../a", "cd a"],
        ["x-y", "x y"],
        ["2-3 days", "2 3 days"],
        ["re-sign", "resign"],
        ["ısı", "isi"],
    ],
)
def test_what_names_another_thing_is_another_query(apart):
    assert len({query_key(text) for text in apart}) == len(apart)


@settings(max_examples=500, deadline=None)
@given(TEXTS, FORMS)
def test_a_key_of_a_key_is_itself_and_every_form_of_unicode_has_one_key(text, form):
    key = query_key(text)
    assert query_key(key) == key and folded(folded(text)) == folded(text)
    assert query_key(unicodedata.normalize(form, text)) == key


@settings(max_examples=500, deadline=None)
@given(st.lists(st.text("abCD+#/", min_size=1, max_size=4), min_size=1, max_size=4), st.data())
def test_case_spaces_and_punctuation_at_the_edges_of_words_make_no_difference(words, data):
    before = st.sampled_from(["", '"', "'", "“", "¿"])
    after = st.sampled_from(["", "?", " ?", "!!", ".", ",", "”", "。", "…", ":"])
    space = st.sampled_from([" ", "  ", "\t", "\u3000", " \u200b"])
    case = st.sampled_from([str.upper, str.lower, str.title])
    written = "".join(
        data.draw(before) + data.draw(case)(word) + data.draw(after).strip() + data.draw(space) for word in words
    )
    assert query_key(written + data.draw(after)) == query_key(" ".join(words)) == " ".join(words).lower()


@settings(max_examples=300, deadline=None)
@given(st.text("ab .,!?\"':;-+#/\x1f", max_size=12), st.sampled_from("éßｆ"))
def test_plain_letters_are_treated_as_all_others(text, other):
    # the second word makes the text one that is not ASCII
    assert query_key(f"{text} x{other}").endswith(query_key(f"x{other}"))
    assert query_key(f"{text} x{other}").split()[:-1] == query_key(f"{text} xy").split()[:-1]


def test_a_redacted_query_is_none_that_was_typed():
    redacted = [dropped("secret"), hashed("k" * 32)("secret")]
    assert all(map(is_redacted, redacted))
    for query in redacted:
        typed = [query.upper(), f" {query}", f"{query}?", query.rstrip(":") + "!"]
        assert query_key(query) not in set(map(query_key, typed))
        assert query_key(query_key(query)) == query_key(query)
    assert query_key("redacted: thing3") == "redacted thing3"


@pytest.mark.parametrize(
    "unit", ["?", " ?", "(a ", "[", ". ", "“", "x ", "？ ", "\u0301", "i\u0307\u0301", "\u200b", "'"]
)
def test_a_text_without_end_takes_no_time_without_end(unit):
    # with a step per pair of characters this would take hours
    assert query_key(unit * 300_000 + "é").endswith("é") and query_key(unit * 300_000 + "e").endswith("e")


@given(TEXTS)
def test_an_id_is_one_composed_and_decomposed_and_nothing_else(name):
    forms = {id_key(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}
    assert forms == {id_key(name)} and id_key(id_key(name)) == id_key(name)
    assert name.isascii() <= (id_key(name) == name)


@pytest.mark.parametrize("other", ["Docs/a.md", "docs/a.md ", "docs/a", "docs/ａ.md", "docs\\a.md", "docs/a.md#0"])
def test_ids_that_only_look_alike_are_others(other):
    assert id_key(other) != id_key("docs/a.md")

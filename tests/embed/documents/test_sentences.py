"""A text -> its sentences, in many languages."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_embed_plus.documents.cutting.sentences import parts_of, sentences

PARTED = {
    "English": "He came home. | Was it late? | Yes! | She slept.",
    "abbreviations": "Dr. Smith met Mr. J. R. Jones, e.g. in the U.S. Senate, cf. Fig. 3 and No. 1234. | They talked.",
    "no is no number": "He said no. | Then he left.",
    "decimals": "It costs 3.50 or v1.2.3 of node.js. | Look at https://a.org/x?y=1.2 now.",
    "quotes": 'He said "Stop." | "Go on," she said. | (It was late.) | They left.',
    "a question that goes on": "“Really?” he asked. | “Yes.” | She left…",
    "German": "Das gilt z. B. am 3. Oktober, d.h. bald. | Prof. Müller kam u.a. mit. | Ende.",
    "French": "Il est parti. | Mme Dupont a dit « oui ». | Pourquoi ?",
    "Spanish": "¿Qué hora es? | ¡Vamos ya! | Son las tres.",
    "Russian": "Он пришёл домой. | Это на ул. Ленина. | Поздно?",
    "Chinese": "我爱北京。|天安门上太阳升！|真的吗？|他说：“好。”|我走了。",
    "Chinese with quotes": "他说：「你好！」|她笑了。|（完。）|再见",
    "Japanese": "東京は首都です。|そうですか？|はい！？|『終わり。』|次",
    "Korean": "한국어는 띄어쓰기를 한다. | 좋습니까? | 네.",
    "Hindi": "यह किताब है। | वह घर गया॥ | अच्छा?",
    "Arabic": "هل أنت بخير؟ | نعم، أنا بخير. | شكرا",
    "Urdu": "یہ کتاب ہے۔ | وہ گھر گیا۔ | ٹھیک",
    "Armenian": "Սա գիրք է։ | Նա տուն գնաց։ | Լավ",
    "Amharic": "ሰላም ነው። | እንዴት ነህ፧ | ደህና",
    "Khmer": "ខ្ញុំទៅផ្ទះ។ | គាត់មក។ | ល្អ",
    "Burmese": "သူသွားသည်။ | သူလာသည်။ | ကောင်း",
    "Thai": "ฉันไปบ้าน | เขามาแล้ว | ดี",
    "Tibetan": "བོད་ཡིག།| ང་འགྲོ༎| ལེགས",
    "Greek": "Ήρθε σπίτι. | Ήταν αργά!",
}


@pytest.mark.parametrize("language", PARTED)
def test_a_text_is_parted_where_its_sentences_end(language):
    expected = [part.strip() for part in PARTED[language].split("|")]
    text = PARTED[language].replace("|", "")
    assert [sentence.strip() for sentence in sentences(text)] == expected


@given(st.text())
def test_sentences_joined_are_the_text(text):
    assert "".join(sentences(text)) == text


@given(st.text(alphabet=st.sampled_from("a.!?。，, \n\u0301é\u0e01中"), max_size=300), st.integers(1, 80))
def test_parts_joined_are_the_text_and_none_is_longer_than_asked(text, most):
    parts = [part for part, _ in parts_of(text, most)]
    assert "".join(parts) == text
    assert all(len(part.strip()) <= most for part in parts)


def test_a_letter_is_not_parted_from_its_marks():
    text = "e\u0301" * 500
    assert all(part.startswith("e") and part.endswith("\u0301") for part, _ in parts_of(text, 40))


@pytest.mark.parametrize("text", ["." * 10**5, "!?" * 10**5, "a. " * 10**5, " " * 10**5, "。" * 10**5, '."' * 10**5])
def test_a_hostile_text_takes_linear_time(text):
    # quadratic time would be minutes
    start = time.process_time()
    assert "".join(sentences(text)) == text
    assert time.process_time() - start < 20

"""Files of training rows as other tools write them: each is read as its authors meant it, or refused with a way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_embed_plus.training.data.formats import Asked, format_of
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import Distilled, TrainingData
from llama_index_embed_plus.training.data.sources import passages_of
from qdrant_tools.errors import InputError
from qdrant_tools.records import Example
from qdrant_tools.same import query_key

FILES = Path(__file__).with_name("formats")
HONEY, CATS, DOGS = "Bees make honey from nectar.", "Cats sleep most of the day.", "Dogs bark at the postman."
WHO, BEE = "who makes honey", f"Honey bee {HONEY}"
ASKED = "Who makes honey?"

# file -> query, positives, negatives of each example
READ = {
    "bge_embedder.jsonl": [
        (WHO, [HONEY], [CATS, DOGS]),
        ("wer macht Honig", ["Bienen machen Honig.", "Die Biene sammelt Nektar."], []),
    ],
    "bge_classes.jsonl": [("I am over the moon", ["joy"], ["anger", "fear"])],
    "bge_ids_beside_texts.jsonl": [(WHO, [HONEY], [CATS])],
    "bge_jsonl_named_json.json": [(WHO, [HONEY], [CATS]), ("who barks", [DOGS], [CATS])],
    "tevatron.jsonl": [(WHO, [BEE], [CATS])],
    "positives_texts.jsonl": [
        (WHO, [HONEY], [CATS, DOGS]),
        ("誰が蜂蜜を作りますか", ["ミツバチが蜂蜜を作ります。"], ["猫は一日中寝ています。"]),
    ],
    "positive_list.jsonl": [(WHO, [HONEY], [CATS])],
    "positives_without_ids.jsonl": [(WHO, [f"Bees {HONEY}"], [CATS])],
    "documents_with_labels.jsonl": [(WHO, [HONEY], [CATS, DOGS])],
    "answer_with_negatives.jsonl": [(WHO, [HONEY], [CATS, DOGS])],
    "negatives_sometimes_none.jsonl": [(WHO, [HONEY], [CATS]), ("who barks", [DOGS], [])],
    "title_without_text.jsonl": [(WHO, ["Honey bee"], [])],
    "marco_v2.json": [(WHO, [HONEY], [CATS])],
    "squad_answers_listed.jsonl": [(ASKED, [HONEY], [])],
    "cohere_rerank.jsonl": [(WHO, [HONEY], [CATS, DOGS])],
    "pandas_lists.csv": [(WHO, [HONEY], [CATS, DOGS])],
    "flat_pos_neg.tsv": [(WHO, [HONEY], [CATS])],
    "dpr.json": [(WHO, [BEE], [f"Cat {CATS}", f"Dog {DOGS}"])],
    "dpr_columns.jsonl": [
        ("wer macht Honig", ["Biene Bienen machen Honig."], ["Katze Katzen schlafen.", "Hund Hunde bellen."])
    ],
    "marco_triples.tsv": [
        ("is honey made by bees", [HONEY], ["Cats sleep most of the day, and at night too."]),
        ("who barks", [DOGS], [CATS]),
    ],
    "marco_questions.jsonl": [(WHO, [HONEY], [CATS])],
    "marco_folder": [(WHO, [HONEY], [])],
    "beir": [(WHO, [BEE], [CATS])],
    "beir/qrels/test.tsv": [("who sleeps", [CATS], [])],
    "beir_test_only/qrels/test.tsv": [(WHO, [BEE], [])],
    "beir_generated_queries.jsonl": [(WHO, [BEE], [])],
    "squad_v1.json": [(ASKED, [HONEY], []), ("From what?", [HONEY], [])],
    "squad_v2.json": [(ASKED, [HONEY], [])],
    "squad_flat.jsonl": [(ASKED, [HONEY], [])],
    "squad_flat.csv": [(ASKED, [HONEY], [])],
    "question_context_answer.csv": [(ASKED, [HONEY], [])],
    "boolq.jsonl": [("do bees make honey", [HONEY], [])],
    "hotpot.json": [
        (
            "Do the insects that make honey sleep?",
            ["Honey bee Bees make honey. They fly.", "Bee sleep Bees rest. They sleep at night."],
            ["Cat Cats sleep."],
        )
    ],
    "hotpot_columns.jsonl": [(ASKED, ["Honey bee Bees make honey."], ["Cat Cats sleep."])],
    "musique.jsonl": [(ASKED, [f"Bee {HONEY}"], [f"Cat {CATS}"])],
    "st_arrays.jsonl": [(WHO, [HONEY], []), ("who barks", [DOGS], [])],
    "st_array_triplets.jsonl": [(WHO, [HONEY], [CATS])],
    "st_sets.jsonl": [
        (ASKED, ["What insect produces honey?", "By whom is honey made?"], []),
        ("What insect produces honey?", ["By whom is honey made?", ASKED], []),
        ("By whom is honey made?", [ASKED, "What insect produces honey?"], []),
    ],
    "st_query_pos.jsonl": [(WHO, [HONEY, "Honey is made by bees."], [])],
    "anli.jsonl": [(HONEY, ["Insects make honey."], ["Cats make honey."])],
    "ragas_testset.jsonl": [(ASKED, [HONEY, "Nectar comes from flowers."], [])],
    "ragas_testset.csv": [(ASKED, [HONEY], [])],
    "ragas_old_testset.jsonl": [(ASKED, [HONEY], [])],
    "deepeval_goldens.json": [(ASKED, [HONEY], [])],
    "llama_rag_dataset.json": [(ASKED, [HONEY], [])],
    "llama_qa_dataset.json": [(ASKED, [HONEY], [])],
    "giskard.jsonl": [(ASKED, [HONEY, "Nectar comes from flowers."], [])],
    "swift_messages.jsonl": [(WHO, [HONEY], [CATS, DOGS])],
    "pandas_columns.json": [(WHO, [HONEY], []), ("who barks", [DOGS], [])],
    "pandas_split.json": [(WHO, [HONEY], [])],
    "datasets_columns.json": [(WHO, [HONEY], []), ("who barks", [DOGS], [])],
}
TAUGHT = {
    "bge_teacher_scores.jsonl": Distilled(WHO, HONEY, (CATS, DOGS), (8.0, 5.5)),
    "bge_reranker_prompted.jsonl": Distilled(WHO, HONEY, (CATS,), (6.5,)),
}
BY_ID = ["positives_ids.jsonl", "nemo_pos_doc.jsonl", "tevatron_ids.jsonl", "judged_ids.jsonl"]
# file -> words of the refusal
REFUSED = {
    "positives_ids.jsonl": ":1: 'positives' holds 'd7' and the like, which are ids .* give the passages .*passages=",
    "positives_ids_beside_texts.jsonl": ":1: 'positives' holds 'd7' and the like, which are ids",
    "negatives_ids_in_japanese.jsonl": ":1: 'negatives' holds '文書-12' and the like, which are ids",
    "judged_ids.jsonl": ":1: 'doc_id' holds 'd7', the id of a passage, and no text: give the passages too",
    "flat_ids.csv": "every passage is a word such as 'd7', an id by its looks: call the field positive_id",
    "snli_named.txt": ":1: 'gold_label.* is no line of text but a row: name the file .tsv",
    "qrels_named.txt": ":1: '1185869 0 0 1' is no line of text but a row: name the file .tsv",
    "jsonl_named.txt": ":1: .* is no line of text but a row: name the file .jsonl",
    "list_named.jsonl": ":1: a JSON list of rows, where each line should be a row: name the file .json",
    "qa_with_negatives.json": "has 'hard_negatives', expected queries, corpus and relevant_docs alone",
    "qa_unknown_passage.json": "'q' is answered by 'z', which is not in the corpus",
    "gpl_margins.tsv": ":1: the first row is 'genQ1', .*, which looks like data: write the names of the columns",
    "positives_numbers.jsonl": ":1: 'positives' holds 7 and the like, which are ids",
    "positives_file_names.jsonl": ":1: 'positives' holds 'Honig und Bienen.pdf' and the like, which are ids",
    "nemo_pos_doc.jsonl": ":1: 'pos_doc' holds 'd7', the id of a passage, and no text: give the passages",
    "tevatron_ids.jsonl": ":1: 'positive_document_ids' holds 'd7', the id of a passage",
    "positives_with_labels.jsonl": ":1: a passage of 'positives' has 'label', which says what it is",
    "positive_and_negative_at_once.jsonl": ":1: the passage 'Bees make .* is a positive and a negative of one query",
    "bge_scores_missing_one.jsonl": ":1: 'neg_scores' has 1 scores for 2 negatives: expected one for each",
    "instructor_medi.jsonl": ":1: 'query' is a list .of tokens, or INSTRUCTOR's instruction and text.: give the text",
    "pandas_arrays.csv": "'neg' is .*, the print of a list that cannot be read back: write the rows as .jsonl",
    "fid_retrieved.jsonl": ":1: is a row of what a retriever found: which of it answers nobody has judged",
    "marco_id_triples.tsv": ":1: the first row holds '1185869', '0', .* ids without texts cannot be trained on; give a",
    "marco_collection.tsv": ":1: the first row is '0', 'Bees .*, which looks like data: write the names of the columns",
    "marco_hard_negatives.jsonl": ":1: is a row of MS MARCO's hard negatives: they are ids: write the texts",
    "colbert_triples.jsonl": ":1: an array of 3 values, the first 0, expected an object .*ids have to be replaced",
    "beir_test_only": "has judgements in test.tsv and none of the split 'train': name the split or the file",
    "beir_other_ids": "none of its 1 ids is in .*corpus.jsonl; 'd7' may be 'docs/d7.md'",
    "qrels_alone.tsv": "qrels_alone.tsv holds judgements, whose texts are looked for in .*: it has no corpus.jsonl",
    "qrels_rows.jsonl": ":1: is a row of judgements: they name queries and passages, and hold no texts: give the",
    "ragas_evaluated.jsonl": ":1: 'contexts' holds what a retriever found, and which of it answers is not said",
    "ragas_retrieved.jsonl": ":1: is a row of what a retriever found",
    "deepeval_goldens.csv": ":2: 'context' is a text, into which DeepEval's CSV joins several: save .* as JSON",
    "openai_messages.jsonl": ":1: is a row of a chat: .*: write what is asked as 'query' and a passage that answers it",
    "alpaca.jsonl": ":1: is a row of instructions with outputs: write what is asked as 'query'",
    "preferences.jsonl": ":1: is a row of a set of preferences: .* name them 'query', 'positive' and 'negative' if",
    "langsmith.jsonl": ":1: is a row of a LangSmith data set: which of its fields are passages only its owner knows",
    "label_studio.json": ":1: is a row of a Label Studio export: write what was annotated as rows of 'query'",
    "kilt.jsonl": ":1: is a row of KILT: its provenance is places in Wikipedia, no texts",
    "two_splits.json": "holds lists of rows, train, test: write the one to read to a file of its own",
    "twice_in_json.json": "an object in it has one key twice: which value is meant cannot be told",
    "headless_pairs.tsv": ":1: the first row is 'who makes honey', 'Bees .* which looks like data: write the names",
}
LEFT_OUT = {
    "dpr.json": 1, "marco_questions.jsonl": 1, "beir": 1, "squad_v2.json": 1, "squad_flat.jsonl": 1,
    "squad_flat.csv": 1, "question_context_answer.csv": 1, "musique.jsonl": 1, "squad_answers_listed.jsonl": 1,
}  # fmt: skip
IGNORED = {
    "bge_embedder.jsonl": {"prompt", "type"},
    "bge_teacher_scores.jsonl": set(),
    "tevatron.jsonl": {"query_id", "answers"},
    "positives_texts.jsonl": {"lang"},
    "answer_with_negatives.jsonl": set(),
    "boolq.jsonl": {"title", "answer"},
    "ragas_testset.jsonl": {"reference", "synthesizer_name"},
    "deepeval_goldens.json": {"expected_output", "retrieval_context", "source_file"},
}


def texts(data: TrainingData) -> list[tuple[str, list[str], list[str]]]:
    return [(e.query, [p.text for p in e.positives], [n.text for n in e.negatives]) for e in data.examples]


@pytest.mark.parametrize("name", READ)
def test_a_file_of_another_tool_is_read_as_it_was_meant(name):
    data = read_training_data(FILES / name)
    assert texts(data) == READ[name]
    assert data.left_out == LEFT_OUT.get(name, 0)


@pytest.mark.parametrize("name", TAUGHT)
def test_the_scores_of_a_teacher_become_margins(name):
    assert read_training_data(FILES / name).rows == (TAUGHT[name],)
    assert texts(read_training_data(FILES / name, kind="examples")) == [
        (TAUGHT[name].query, [HONEY], list(TAUGHT[name].negatives))
    ]


@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_can_read_is_refused_with_the_place_and_a_way_out(name):
    with pytest.raises(InputError, match=REFUSED[name]) as refusal:
        read_training_data(FILES / name)
    said = str(refusal.value)
    assert said.startswith(str(FILES / name)) and "\n" not in said
    assert len(said) < 450 + 2 * len(str(FILES))


@pytest.mark.parametrize("name", BY_ID)
def test_ids_are_looked_up_in_the_passages_that_are_given(name):
    data = read_training_data(FILES / name, passages=FILES / "passages_of_ids.jsonl")
    assert texts(data) == [(WHO, [BEE], [CATS])]
    assert [passage.id for passage in (*data.examples[0].positives, *data.examples[0].negatives)] == ["d7", "d9"]


def test_an_id_that_is_not_among_the_passages_is_never_a_text(tmp_path):
    file = tmp_path / "ids.jsonl"
    file.write_text('{"query": "who makes honey", "positives": ["D7.md"]}\n')
    with pytest.raises(InputError, match="names the passage 'D7.md', which is not among .*; did you mean 'd7'"):
        read_training_data(file, passages=FILES / "passages_of_ids.jsonl")


@pytest.mark.parametrize("name", IGNORED)
def test_fields_that_are_not_read_are_named(name):
    assert set(read_training_data(FILES / name).ignored) == IGNORED[name]


def test_scores_that_are_not_asked_for_are_named():
    data = read_training_data(FILES / "bge_teacher_scores.jsonl", kind="triplets")
    assert set(data.ignored) == {"pos_scores", "neg_scores"}


def test_of_two_passages_with_one_text_the_negative_goes(tmp_path):
    def row(negative: str) -> str:
        sides = {"positive_passages": [{"docid": "7", "text": HONEY}]}
        return json.dumps({"query": WHO, **sides, "negative_passages": [{"docid": negative, "text": HONEY}]}) + "\n"

    (tmp_path / "twins.jsonl").write_text(row("9"))
    assert texts(read_training_data(tmp_path / "twins.jsonl")) == [(WHO, [HONEY], [])]
    (tmp_path / "same.jsonl").write_text(row("7"))
    with pytest.raises(InputError, match="is a positive and a negative of one query"):
        read_training_data(tmp_path / "same.jsonl")


def test_ids_stay_with_their_texts():
    passages = {
        name: [(text.id, text.text) for text in (*example.positives, *example.negatives)]
        for name in ("tevatron.jsonl", "dpr.json", "beir", "bge_ids_beside_texts.jsonl", "marco_folder")
        for example in read_training_data(FILES / name).examples
    }
    assert passages == {
        "tevatron.jsonl": [("12#1", BEE), ("7#0", CATS)],
        "dpr.json": [("654", BEE), ("12", f"Cat {CATS}"), ("99", f"Dog {DOGS}")],
        "beir": [("d7", BEE), ("d9", CATS)],
        "bge_ids_beside_texts.jsonl": [("d7", HONEY), ("d9", CATS)],
        "marco_folder": [("0", HONEY)],
    }


def test_every_file_of_the_folder_is_in_a_table():
    known = {*READ, *TAUGHT, *REFUSED, "passages_of_ids.jsonl"}
    assert sorted(path.name for path in FILES.iterdir() if path.name not in known) == []


def test_rows_of_which_none_is_answered_are_no_training_data(tmp_path):
    file = tmp_path / "unanswered.jsonl"
    file.write_text('{"question": "Who?", "context": "Nobody.", "answers": []}\n' * 2)
    with pytest.raises(InputError, match="holds 2 rows, and all are left out: nothing answers"):
        read_training_data(file)


ODD = [
    {"query": "q", "pos": {"a": 1}}, {"query": "q", "pos": [None]}, {"query": "q", "pos": [1.5, "a b"]},
    {"query": "q", "pos": ["a b"], "pos_scores": ["x"], "neg": ["c d"], "neg_scores": [None]},
    {"query": "q", "pos": ["a b"], "pos_id": {"a": 1}}, {"query": "q", "pos": [{"text": "a b", "id": True}]},
    {"question": "q", "context": "c", "supporting_facts": 1},
    {"question": "q", "context": [["t", [1]]], "supporting_facts": [["t", 0]]},
    {"question": "q", "paragraphs": [1]}, {"question": "q", "paragraphs": [{"paragraph_text": "a b"}]},
    {"title": "t", "paragraphs": [{"context": "c", "qas": [1]}]}, {"title": "t", "paragraphs": ["x"]},
    {"question": "q", "context": "c d", "is_impossible": "maybe", "answers": []},
    {"query": "q", "passages": {"is_selected": [1, 0], "passage_text": ["a b"]}},
    {"query": "q", "passages": {"is_selected": ["?"], "passage_text": ["a b"]}},
    {"messages": 1, "positive_messages": 2}, {"input": "q", "context": [{}]}, {"set": list(map(str, range(2000)))},
    {"query": "q", "docs": ["a b"], "labels": []}, {"query": "q", "pos": ["a b"], "weight": "x"},
    {"query": "q", "pos": "['" + "[" * 100_000 + "]"}, {"query": "q", "pos": "['a' 'b']"},
]  # fmt: skip


@pytest.mark.parametrize("row", ODD, ids=lambda row: json.dumps(row)[:60])
def test_an_odd_row_of_a_format_is_one_error_with_its_line(tmp_path, row):
    file = tmp_path / "odd.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=r"odd\.jsonl:1: .*(expected|more than|cannot be read back)") as refusal:
        read_training_data(file)
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400 + len(str(file))


def test_a_long_list_in_a_json_file_is_read_row_by_row(tmp_path):
    file = tmp_path / "train.json"
    paragraph = {"context": HONEY * 500, "qas": [{"question": ASKED, "answers": ["Bees"]}]}
    file.write_text(json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": [paragraph]}] * 1300}))
    assert file.stat().st_size > 1 << 24
    assert len(read_training_data(file)) == 1300


def test_passages_of_a_collection_without_a_header_have_an_id_and_a_text():
    assert passages_of(FILES / "marco_folder" / "collection.tsv") == {"0": HONEY, "1": CATS}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
ENTRIES = st.one_of(
    TEXTS,
    st.integers(),
    st.fixed_dictionaries({"text": TEXTS}, optional={"id": TEXTS, "title": TEXTS}),
    st.fixed_dictionaries({"docid": TEXTS}),
)


@given(query=TEXTS, positives=st.lists(ENTRIES, max_size=3), negatives=st.lists(ENTRIES, max_size=3))
def test_a_list_gives_every_text_once_or_is_refused_and_no_id_is_a_text(query, positives, negatives):
    row = {"query": query, "pos": positives, "neg": negatives}
    form = format_of(row)
    assert form is not None and form.reads >= row.keys()
    try:
        found = list(form.rows(row, Asked()))
    except InputError as refusal:
        assert "\n" not in str(refusal)
        return
    assert len(found) == bool(positives)
    for example in map(Example.from_row, found):
        answers = {query_key(passage.text) for passage in example.positives}
        assert len(example.positives) == len(positives)
        # what says the same as a positive is no negative
        kept = [entry for entry in negatives if query_key(joined(entry)) not in answers]
        for side, entries in ((example.positives, positives), (example.negatives, kept)):
            assert [" ".join(passage.text.split()) for passage in side] == list(map(joined, entries))


def joined(entry):
    assert not isinstance(entry, int)
    title, text = ("", entry) if isinstance(entry, str) else (entry.get("title", ""), entry["text"])
    return " ".join(f"{title} {text}".split())


@given(st.lists(st.integers() | TEXTS.filter(lambda text: text.isalnum() and text.isascii()), min_size=1))
def test_a_row_of_nothing_but_names_is_refused_without_their_passages(names):
    row = {"query": "who makes honey", "positives": names}
    form = format_of(row)
    assert form is not None
    asked = Asked()
    with pytest.raises(InputError, match="give the passages"):
        list(form.rows(row, asked))
        asked.seen.check()  # words may be texts, if others of their file are

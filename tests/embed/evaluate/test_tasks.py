"""Folders of data are recognised by their files, read with file and line, and measured into one row each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mteb_tasks import MixedEncoder, sentences

from llama_index_embed_plus.evaluate.tasks.layouts import find_tasks
from llama_index_embed_plus.evaluate.tasks.run import TaskOptions, read_task, run_task
from qdrant_tools.errors import InputError, UsageError

TEXTS, TOPICS = sentences(40, seed=1)


def jsonl(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, *rows: tuple[object, ...]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    separator = "\t" if path.suffix == ".tsv" else ","
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def retrieval(folder: Path) -> Path:
    jsonl(folder / "corpus.jsonl", *({"_id": f"p{n}", "title": f"t{n}", "text": text} for n, text in enumerate(TEXTS)))
    jsonl(folder / "queries.jsonl", *({"_id": f"q{n}", "text": text} for n, text in enumerate(TEXTS[:6])))
    table(folder / "qrels" / "test.tsv", ("query-id", "corpus-id", "score"), *((f"q{n}", f"p{n}", 1) for n in range(6)))
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    """One folder of every kind, in the shapes in which data sets are found."""
    root = tmp_path / "data"
    retrieval(root / "search")
    labelled = [{"text": text, "label": topic} for text, topic in zip(TEXTS, TOPICS)]
    jsonl(root / "intents" / "train.jsonl", *labelled)
    jsonl(root / "intents" / "test.jsonl", *labelled[:20])
    pairs = list(zip(TEXTS[:20], TEXTS[1:21]))
    header = ("sentence1", "sentence2", "score")
    table(root / "sts" / "test.tsv", header, *((*pair, n % 5) for n, pair in enumerate(pairs)))
    table(root / "sts" / "train.tsv", header, *((*pair, 1) for pair in pairs))
    kinds = ("entailment", "neutral", "contradiction")
    table(
        root / "nli" / "test.tsv",
        ("premise", "hypothesis", "label"),
        *((*p, kinds[n % 3]) for n, p in enumerate(pairs)),
    )
    table(root / "same" / "test.csv", ("question1", "question2", "label"), *((*p, n % 2) for n, p in enumerate(pairs)))
    table(root / "bitext" / "test.tsv", ("sentence1", "sentence2"), *pairs)
    triplets = ({"anchor": a, "positive": b, "negative": c} for a, b, c in zip(TEXTS, TEXTS[1:], TEXTS[2:]))
    jsonl(root / "nli" / "triplets_test.jsonl", *triplets)
    ordered = {"query": "rivers1", "positive": TEXTS[:2], "negative": TEXTS[2:5]}
    jsonl(root / "rerank" / "test.jsonl", ordered, ordered | {"negative": []})
    jsonl(root / "copies" / "test.jsonl", *({"text": text, "group": n // 2} for n, text in enumerate(TEXTS)))
    summary = {"human_summaries": TEXTS[:2], "machine_summaries": TEXTS[2:5], "relevance": [1, 2.5, 3]}
    jsonl(root / "summaries" / "test.jsonl", summary)
    return root


def names(folder: Path, **options: str) -> list[str]:
    return [task.name for task in find_tasks(folder, **options)[0]]


def measured(folder: Path, **options: object):
    tasks, _ = find_tasks(folder)
    jobs = [(task, read_task(task, TaskOptions(**options))) for task in tasks]
    return {task.name: run_task(task, job, MixedEncoder()) for task, job in jobs}


def test_every_kind_is_recognised_by_its_files_and_columns(data):
    assert names(data) == [
        "bitext/bitext_mining",
        "copies/duplicates",
        "intents/classification",
        "intents/clustering",
        "nli/pair_classification",
        "nli/triplets_test/reranking",
        "rerank/reranking",
        "same/pair_classification",
        "search/retrieval",
        "sts/similarity",
        "summaries/summarisation",
    ]
    assert names(data / "sts") == ["sts/similarity"]
    assert names(data, split="train") == ["intents/clustering", "sts/similarity"]


def test_every_kind_gives_one_figure_with_what_lies_behind_it(data):
    found = measured(data)
    assert {name: result.metric for name, result in found.items()} == {
        "bitext/bitext_mining": "f1",
        "copies/duplicates": "ap",
        "intents/classification": "accuracy",
        "intents/clustering": "v_measure",
        "nli/pair_classification": "ap",
        "nli/triplets_test/reranking": "map",
        "rerank/reranking": "map",
        "same/pair_classification": "ap",
        "search/retrieval": "ndcg@10",
        "sts/similarity": "spearman",
        "summaries/summarisation": "spearman",
    }
    assert all(-1 <= result.value <= 1 for result in found.values())
    assert found["nli/pair_classification"].details["left_out"] == 7  # the neutral ones
    assert found["rerank/reranking"].details["skipped"] == 1
    assert found["search/retrieval"].details["passages"] == 40
    assert found["intents/classification"].details["accuracies"][9] <= 1
    for result in found.values():
        assert json.loads(json.dumps(result.as_row()))["value"] == result.value


def test_a_limit_looks_at_so_many_rows_and_at_whole_groups(data):
    found = measured(data, limit=10)
    details = {name: result.details for name, result in found.items()}
    assert details["sts/similarity"]["pairs"] == 10 and details["intents/classification"]["test_texts"] == 10
    assert details["intents/classification"]["train_texts"] == 10  # two of each of five labels
    assert details["copies/duplicates"]["pairs"] == 5
    assert (details["search/retrieval"]["queries"], details["search/retrieval"]["passages"]) == (6, 10)
    with pytest.raises(UsageError, match="limit is 1"):
        TaskOptions(limit=1)


def test_passages_are_embedded_with_their_titles_unless_told_not_to(data):
    class Listening(MixedEncoder):
        def encode_passages(self, texts):
            self.heard = texts
            return super().encode_passages(texts)

    for titles, wanted in ((True, f"t0 {TEXTS[0]}"), (False, TEXTS[0])):
        encoder = Listening()
        (task,) = find_tasks(data / "search")[0]
        run_task(task, read_task(task, TaskOptions(titles=titles)), encoder)
        assert encoder.heard[0] == wanted


def test_what_retrieval_files_do_not_fit_together_in_is_counted(data):
    with (data / "search" / "qrels" / "test.tsv").open("a") as file:
        file.write("q0\tnobody\t1\nnobody\tp1\t1\nq5\tp7\t0\n")
    with (data / "search" / "queries.jsonl").open("a") as file:
        file.write('{"_id": "bare", "text": "no judgement"}\n{"_id": "none", "text": "nothing relevant"}\n')
    with (data / "search" / "qrels" / "test.tsv").open("a") as file:
        file.write("none\tp1\t0\n")
    with (data / "search" / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "empty", "title": "", "text": " "}\n')
    details = measured(data / "search")["search/retrieval"].details
    assert (details["queries"], details["passages"], details["empty_passages"]) == (7, 40, 1)
    assert (details["unknown_queries"], details["unknown_passages"], details["without_relevant"]) == (1, 1, 1)


def test_a_folder_that_is_no_task_is_named_with_the_reason(tmp_path):
    table(tmp_path / "odd" / "test.tsv", ("a", "b"), (1, 2))
    jsonl(tmp_path / "later" / "train.jsonl", {"text": "x", "label": "y"})
    jsonl(tmp_path / "alone" / "test.jsonl", {"text": "x", "label": "y"})
    retrieval(tmp_path / "search")
    (tmp_path / "search" / "qrels" / "test.tsv").rename(tmp_path / "search" / "qrels" / "dev.tsv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "test.jsonl").touch()
    tasks, skipped = find_tasks(tmp_path)
    assert [task.name for task in tasks] == ["alone/clustering"]
    assert {each.name: each.reason for each in skipped} == {
        "alone/classification": "test.jsonl has labels, but no train.jsonl to learn them from",
        "later": "no file of the split 'test': train.jsonl",
        "none": "test.jsonl has the columns of no row: no known task",
        "odd": "test.tsv has the columns a, b: no known task",
        "search": "has corpus.jsonl and queries.jsonl but no qrels/test.tsv",
    }


AMBIGUOUS = {"sentence1": "a b", "sentence2": "a c", "score": 3.0, "is_duplicate": 1}


def test_a_file_that_could_be_read_in_two_ways_is_named_and_the_kind_that_is_asked_for_decides(tmp_path):
    other = {**AMBIGUOUS, "sentence2": "x y", "score": 1.0, "is_duplicate": 0}
    jsonl(tmp_path / "test.jsonl", AMBIGUOUS, other)
    tasks, (skipped,) = find_tasks(tmp_path)
    assert not tasks and skipped.reason.endswith(
        "two texts, and 'score', 'is_duplicate' may say what a pair means: --task similarity reads 'score', "
        "--task pair_classification reads 'is_duplicate'; or call it 'score' or 'label'"
    )
    for kind, column, details in (
        ("similarity", "score", {"pairs": 2}),
        ("pair_classification", "is_duplicate", {"pairs": 2, "positives": 1}),
    ):
        ((task,), _) = find_tasks(tmp_path, asked=[kind])
        assert (task.kind, task.column) == (kind, column)
        found = run_task(task, read_task(task), MixedEncoder()).details
        assert {name: found[name] for name in details} == details
    assert not find_tasks(tmp_path, asked=["similarity", "pair_classification"])[0], "both at once decide nothing"


def test_a_column_of_an_unknown_name_is_read_as_what_is_asked_for(tmp_path):
    rows = [
        {"sentence1": "a b", "sentence2": "a b", "closeness": 4.5},
        {"sentence1": "a", "sentence2": "b", "closeness": 1},
    ]
    jsonl(tmp_path / "test.jsonl", *rows)
    assert "--task similarity reads 'closeness'" in find_tasks(tmp_path)[1][0].reason
    ((task,), _) = find_tasks(tmp_path, asked=[f"{tmp_path.name}/similarity"])
    assert run_task(task, read_task(task), MixedEncoder()).value == pytest.approx(1.0)
    jsonl(tmp_path / "test.jsonl", *({**row, "closeness2": 1} for row in rows))
    tasks, (skipped,) = find_tasks(tmp_path, asked=["similarity"])
    assert not tasks and "'closeness', 'closeness2' may say what a pair means: leave out all but one" in skipped.reason


def test_the_relatedness_of_sick_is_a_score(tmp_path):
    jsonl(tmp_path / "test.jsonl", {"sentence1": "a", "sentence2": "b", "relatedness": 4.5})
    assert [task.kind for task in find_tasks(tmp_path)[0]] == ["similarity"]


def test_the_file_of_sick_itself_is_measured_by_its_scores(tmp_path):
    rows = [f"{i}\t{text}\t{TEXTS[i - 1]}\tNEUTRAL\t{1 + i % 4}" for i, text in enumerate(TEXTS[:8])]
    names = "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score"
    (tmp_path / "SICK_test.tsv").write_text("\n".join([names, *rows]))
    ((task,), _) = find_tasks(tmp_path)
    assert task.kind == "similarity" and run_task(task, read_task(task), MixedEncoder()).details["pairs"] == 8


def test_one_file_of_all_texts_is_measured_whole_and_classification_says_what_it_needs(tmp_path):
    rows = [{"text": text, "label": text[-1]} for text in TEXTS[:12]]
    jsonl(tmp_path / "topics" / "all.jsonl", *rows)
    jsonl(tmp_path / "two" / "all.jsonl", *rows)
    jsonl(tmp_path / "two" / "more.jsonl", *rows)
    tasks, skipped = find_tasks(tmp_path)
    assert [task.name for task in tasks] == ["topics/clustering"]
    assert run_task(tasks[0], read_task(tasks[0]), MixedEncoder()).details["texts"] == 12
    assert {each.name: each.reason for each in skipped} == {
        "topics/classification": "all.jsonl is one file: part it into train and test for classification",
        "two": "no file of the split 'test': all.jsonl, more.jsonl",
    }


CLAIMS = [
    {"claim_id": "1", "claim": "a b", "claim_label": "SUPPORTS", "evidences": [
        {"evidence_id": "x", "evidence": "a b c", "evidence_label": "SUPPORTS"},
        {"evidence_id": "y", "evidence": "d e", "evidence_label": "NOT_ENOUGH_INFO"},
        {"evidence_id": "z", "evidence": "a b d", "evidence_label": "REFUTES"},
    ]},
    {"claim_id": "2", "claim": "d e", "claim_label": "NOT_ENOUGH_INFO", "evidences": [
        {"evidence_id": "v", "evidence": "x", "evidence_label": "not enough info"},
    ]},
]  # fmt: skip
SELECTED = {"query": "a b", "passages": {"passage_text": ["a b c", "d e", "a b d"], "is_selected": [1, 0, 1]}}
GRADED = {
    "question": "a b",
    "candidates": [{"text": t, "relevance": g} for t, g in (("a b c", 2), ("d e", 0), ("a b", 1))],
}


@pytest.mark.parametrize(
    ("rows", "skipped"), [(CLAIMS, 1), ([SELECTED], 0), ([GRADED], 0)], ids=["claims", "selected", "graded"]
)
def test_candidates_inside_of_a_row_are_reranking(tmp_path, rows, skipped):
    jsonl(tmp_path / "test.jsonl", *rows)
    ((task,), _) = find_tasks(tmp_path)
    assert task.kind == "reranking"
    details = run_task(task, read_task(task), MixedEncoder()).details
    assert (details["queries"], details["skipped"], details["candidates"]) == (1, skipped, 3)


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        (
            {"evidence": "", "evidence_label": "SUPPORTS"},
            r"test.jsonl:2: evidences 1: evidence is '', expected a non-emp",
        ),
        (
            {"evidence": "a", "evidence_label": "DISPUTED"},
            r"evidences 1: evidence_label is 'DISPUTED', expected yes or no",
        ),
        ({"evidence": "a"}, r"evidences 1: evidence_label is None"),
        ("a", r"test.jsonl:2: evidences is .*, expected candidates as in the first row"),
    ],
)
def test_a_candidate_that_says_nothing_clear_is_refused_with_its_row(tmp_path, entry, place):
    jsonl(tmp_path / "test.jsonl", CLAIMS[0], {**CLAIMS[1], "evidences": [entry]})
    ((task,), _) = find_tasks(tmp_path)
    with pytest.raises(InputError, match=place):
        read_task(task)


def test_a_link_to_a_folder_above_is_not_followed(data):
    known = names(data)
    (data / "sts" / "loop").symlink_to(data, target_is_directory=True)
    (data / "nli" / "copy").symlink_to(data / "bitext", target_is_directory=True)
    assert [name for name in names(data) if name not in known] == ["nli/copy/bitext_mining"]


def test_a_folder_without_data_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no data"):
        find_tasks(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        find_tasks(tmp_path / "notes.txt")


GOOD = {"text": "a b", "label": "x"}


@pytest.mark.parametrize(
    ("file", "content", "place"),
    [
        ("test.tsv", "sentence1\tsentence2\tscore\na\tb\t1\na\tb\thigh\n", r"test.tsv:3: score is 'high', expected a"),
        ("test.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n", r"test.tsv:2: score is 'nan'"),
        ("test.tsv", "sentence1\tsentence2\tscore\na\t \t1\n", r"test.tsv:2: sentence2 is ' '"),
        ("test.tsv", "sentence1\tsentence2\tscore\na\tb\n", r"test.tsv:2: 2 columns, the header has 3"),
        ("test.csv", 'sentence1,sentence2,score\n"a,b",c,"1"x\n', r"test.csv:2: "),
        ("test.jsonl", '{"sentence1": "a", "sentence2": "b", "score": "3.5"}\n', r"test.jsonl:1: score is '3.5'"),
        ("test.jsonl", '{"sentence1": "a", "sentence2": "b", "score": 1}\n{oh\n', r"test.jsonl:2: not JSON"),
        ("test.jsonl", '{"sentence1": "a", "sentence2": "b", "score": 1}\n[1]\n', r"test.jsonl:2: a list, expected"),
        ("test.jsonl", '{"sentence1": "a", "sentence2": "b", "score": 1}\n{"text": "a"}\n', r"test.jsonl:2: has not"),
        ("test.jsonl", '{"text1": "a", "text2": "b", "label": "maybe"}\n', r"test.jsonl:1: label is 'maybe', expected"),
        (
            "test.tsv",
            "split\tsentence1\tsentence2\tscore\nTest\ta\tb\t1\ntrain\ta\tb\t2\n",
            r"test.tsv:3: split is 'train', expected 'test' alone: make a file of each split",
        ),
        ("test.jsonl", json.dumps(GOOD) + '\n{"text": "c", "label": null}\n', r"test.jsonl:2: label is None"),
        ("test.jsonl", json.dumps(GOOD) + '\n{"text": "", "label": "x"}\n', r"test.jsonl:2: text is ''"),
        ("test.jsonl", '{"query": "a", "positive": ["b"], "negative": [3]}\n', r"test.jsonl:1: negative is \[3\]"),
        (
            "test.jsonl",
            '{"human_summaries": ["a"], "machine_summaries": ["b", "c"], "relevance": [1]}\n',
            r"test.jsonl:1: 1 human and 2 machine summaries, 1 scores",
        ),
        (
            "test.jsonl",
            '{"human_summaries": ["a"], "machine_summaries": ["b"], "relevance": ["1"]}\n',
            r"test.jsonl:1: relevance is '1', expected a finite number",
        ),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error_with_file_and_line(tmp_path, file, content, place):
    (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=place):
        [read_task(task) for task in find_tasks(tmp_path)[0]]


@pytest.mark.parametrize(
    ("file", "line", "place"),
    [
        ("corpus.jsonl", '{"title": "x", "text": "y"}', r"corpus.jsonl:41: _id is None"),
        ("corpus.jsonl", '{"_id": "p1", "text": "y"}', r"corpus.jsonl:41: the id 'p1' occurs twice"),
        ("corpus.jsonl", '{"_id": "new", "text": 7}', r"corpus.jsonl:41: a title or text is 7"),
        ("queries.jsonl", '{"_id": "new", "text": ""}', r"queries.jsonl:7: text is ''"),
        ("qrels/test.tsv", "q0\tp1\tyes", r"test.tsv:8: the grade is 'yes'"),
        ("qrels/test.tsv", "q0\tp1\t0.5", r"test.tsv:8: the grade is '0.5', expected a whole number"),
        ("qrels/test.tsv", "q0\tp1", r"test.tsv:8: 2 columns"),
    ],
)
def test_a_retrieval_row_that_cannot_be_used_is_an_error_with_file_and_line(data, file, line, place):
    with (data / "search" / file).open("a") as lines:
        lines.write(line + "\n")
    (task,) = find_tasks(data / "search")[0]
    with pytest.raises(InputError, match=place):
        read_task(task)


def test_data_that_cannot_be_measured_is_an_error_with_the_file(data):
    table(data / "sts" / "test.tsv", ("sentence1", "sentence2", "score"), ("a", "b", 1), ("c", "d", 1))
    (task,) = find_tasks(data / "sts")[0]
    with pytest.raises(InputError, match=r"sts/test.tsv: all 2 scores are 1: there is no correlation"):
        run_task(task, read_task(task), MixedEncoder())


def test_judgements_of_other_queries_are_refused(data):
    table(data / "search" / "qrels" / "test.tsv", ("query-id", "corpus-id", "score"), ("other", "p1", 1))
    (task,) = find_tasks(data / "search")[0]
    with pytest.raises(InputError, match="none of 1 queries is in queries.jsonl"):
        read_task(task)


@pytest.fixture
def run(run, minilm):
    """Run `embed-plus benchmark ARGS` with the real model; returns (exit code, stdout, stderr)."""
    return lambda *args: run("benchmark", *args, "--model", minilm)


def test_the_command_prints_one_row_per_task_and_what_was_skipped(run, data):
    table(data / "odd" / "test.tsv", ("a", "b"), (1, 2))
    shutil.rmtree(data / "intents")  # the slowest
    code, out, err = run(data)
    assert code == 0, err
    first, *rows = out.splitlines()
    assert first.startswith("all-MiniLM-L6-v2@") and first.endswith("(torch-fp32)")
    assert [row.split()[0] for row in rows] == [*names(data), "odd"]
    assert any(row.startswith("nli/pair_classification ") and row.endswith("13 pairs, 7 left out") for row in rows)
    assert rows[-1].split(maxsplit=1)[1] == "skipped: test.tsv has the columns a, b: no known task"


def test_the_command_prints_json(run, data):
    code, out, _ = run(data, "--task", "sts", "--task", "reranking", "--json", "--limit", 8)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["task"] for row in rows] == [
        "nli/triplets_test/reranking",
        "rerank/reranking",
        "sts/similarity",
    ]
    assert rows[2]["metric"] == "spearman" and rows[2]["details"]["pairs"] == 8
    assert rows[2]["value"] == rows[2]["details"]["spearman"]
    assert rows[2]["build"] == "torch-fp32" and rows[2]["options"]["limit"] == 8


def test_the_command_names_skipped_folders_in_json_too(run, tmp_path, data):
    table(data / "sts" / "odd_test.tsv", ("a", "b"), (1, 2))
    code, out, _ = run(data / "sts", "--json")
    row = json.loads(out.splitlines()[-1])
    assert code == 0 and row["task"] == "sts/odd_test" and row["value"] is None and "no known task" in row["skipped"]


def test_wrong_usage_and_bad_data_are_one_line(run, data, tmp_path):
    code, out, err = run(data, "--task", "stsb")
    assert code == 2 and out == "" and "has no task 'stsb', but bitext/bitext_mining" in err
    with (data / "sts" / "test.tsv").open("a") as file:
        file.write("a\tb\tmuch\n")
    code, out, err = run(data)
    assert code == 1 and out == "" and "test.tsv:22: score is 'much'" in err.splitlines()[-1]
    code, _, err = run(tmp_path / "nowhere")
    assert code == 1 and "is no folder" in err

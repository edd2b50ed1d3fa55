"""Does cutting by tokens, at sentences, below headings, find answers better than 180 words? How fast is it, how stable?

    python benchmarks/cutting.py --data FOLDER [--model all-MiniLM-L6-v2] [--abstracts 5183] [--files 100]

FOLDER holds `scifact` and `medquad` in BEIR's layout. Five ways to cut the same files, with one encoder and exact
search:

- `words`: at blank lines into at most 180 words, as this project did before;
- `splitter`: LlamaIndex's SentenceSplitter with this encoder's tokenizer, its room and an overlap of 20 tokens;
- `ours`, `headings` (with context) and `overlap` (40 tokens).

Fragments: SciFact's abstracts as text files, a title, a blank line, the abstract: how many test questions have a
passage of fewer than 25 words among the first five, and nDCG@10 of files (a file ranks with its best passage).

Long documents: Markdown files of ten abstracts each under their titles, with SciFact's claims as questions; and of all
answers about one topic of MedQuAD, each under the kind of its question. Its questions are made from topic and kind, so
that headings give away more there than people's questions would.

Each question has one answer, the section it was made for. `answer@1000`: how much of it is among the first 1,000 tokens
of passages, as the share of its runs of four words. `rank`: 1 / the rank among ten of the first passage half
of which comes from it. Differences are to `words`, with 95 % intervals, paired by question. Stability: in a file of 300
passages, how many ids are new after one paragraph is inserted, at every tenth place. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.documents.blocks import markdown_blocks, text_blocks
from llama_index_embed_plus.documents.cutting.cutter import Cutter
from llama_index_embed_plus.documents.cutting.tokens import token_counter
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.metrics import mean, paired_bootstrap

Cut = Callable[[str], list[str]]
BUDGET = 1000
FRAGMENT = 25


def by_words(text: str, most: int = 180) -> Iterator[str]:
    """How this project cut texts before."""
    part: list[str] = []
    size = 0
    for paragraph in re.split(r"\n\s*\n", text):
        words = paragraph.split()
        if not words:
            continue
        if part and size + len(words) > most:
            yield "\n\n".join(part)
            part, size = [], 0
        if len(words) > most:
            yield from (" ".join(words[start : start + most]) for start in range(0, len(words), most))
            continue
        part.append(paragraph.strip())
        size += len(words)
    if part:
        yield "\n\n".join(part)


def ways(encoder: TextEncoder) -> dict[str, Cut]:
    from llama_index.core.node_parser import SentenceSplitter

    counter = token_counter(encoder)
    splitter = SentenceSplitter(
        chunk_size=counter.room, chunk_overlap=20, tokenizer=lambda text: range(counter.count([text])[0])
    )

    def ours(**settings: Any) -> Cut:
        cutter = Cutter(counter, CutSettings(**settings))
        return lambda text: [piece.text for piece in cutter.cut(markdown_blocks(text.split("\n")))]

    return {
        "words": lambda text: list(by_words(text)),
        "splitter": splitter.split_text,
        "ours": ours(),
        "headings": ours(context="headings"),
        "overlap": ours(overlap=40),
    }


@dataclass(frozen=True)
class Task:
    """Files, and questions with the section that answers each."""

    files: list[str]
    questions: dict[str, str]
    answers: dict[str, str]


def scifact(folder: Path, files: int) -> Task:
    """Files of ten abstracts each, those that answer questions first."""
    rows = {row["_id"]: row for row in read_rows(folder / "corpus.jsonl")}
    texts = {row["_id"]: row["text"] for row in read_rows(folder / "queries.jsonl")}
    judged = [pair for split in ("train", "test") for pair in judgements(folder, split)]
    order = list(dict.fromkeys(passage for _, passage in judged))
    others = [name for name in rows if name not in set(order)]
    random.Random(0).shuffle(others)
    used = [*order, *others][: 10 * files]
    random.Random(1).shuffle(used)
    sections = [f"## {rows[name]['title']}\n\n{rows[name]['text']}\n\n" for name in used]
    bodies = ["".join(sections[start : start + 10]) for start in range(0, len(sections), 10)]
    first = {query: passage for query, passage in reversed(judged) if passage in set(used)}
    return Task(
        [f"# Abstracts, part {number}\n\n{body}" for number, body in enumerate(bodies, 1)],
        {query: texts[query] for query in first},
        {query: rows[passage]["text"] for query, passage in first.items()},
    )


def medquad(folder: Path, files: int) -> Task:
    """A file for each of some topics with several answers."""
    rows = {row["_id"]: row for row in read_rows(folder / "corpus.jsonl")}
    queries = {row["_id"]: row for row in read_rows(folder / "queries.jsonl")}
    topics: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for query, passage in [pair for split in ("train", "dev", "test") for pair in judgements(folder, split)]:
        topics[rows[passage]["title"]].append((query, passage))
    several = sorted(topic for topic, pairs in topics.items() if len(pairs) >= 4)
    chosen = random.Random(0).sample(several, min(files, len(several)))
    pairs = [pair for topic in chosen for pair in topics[topic]]
    kinds = {query: queries[query]["metadata"]["qtype"].capitalize() for query, _ in pairs}
    return Task(
        [
            f"# {topic}\n\n"
            + "".join(f"## {kinds[query]}\n\n{rows[passage]['text']}\n\n" for query, passage in topics[topic])
            for topic in chosen
        ],
        {query: queries[query]["text"] for query, _ in pairs},
        {query: rows[passage]["text"] for query, passage in pairs},
    )


def read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def judgements(folder: Path, split: str) -> list[tuple[str, str]]:
    lines = (folder / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(query, passage) for query, passage, grade in (line.split("\t") for line in lines) if int(grade) > 0]


def ranked(encoder: TextEncoder, passages: Sequence[str], questions: Iterable[str], k: int) -> list[list[int]]:
    """Of each question the rows of its `k` nearest passages."""
    scores = encoder.encode_queries(list(questions)) @ encoder.encode_passages(list(passages)).T
    return [list(map(int, np.argsort(-row, kind="stable")[:k])) for row in scores]


def runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + 4]) for start in range(max(1, len(words) - 3))}


def answered(task: Task, passages: Sequence[str], encoder: TextEncoder) -> dict[str, dict[str, float]]:
    """Measure -> question -> value."""
    tokens = token_counter(encoder).count(passages)
    grams = [runs(text) for text in passages]
    found: dict[str, dict[str, float]] = {"answer@1000": {}, "rank": {}}
    for (query, _), rows in zip(task.questions.items(), ranked(encoder, passages, task.questions.values(), 50)):
        answer = runs(task.answers[query])
        read: set[tuple[str, ...]] = set()
        spent = 0
        for row in rows:
            if spent + tokens[row] > BUDGET:
                words = passages[row].split()
                read |= runs(" ".join(words[: len(words) * (BUDGET - spent) // tokens[row]]))
                break
            spent += tokens[row]
            read |= grams[row]
        found["answer@1000"][query] = len(read & answer) / len(answer)
        hits = (place for place, row in enumerate(rows[:10], 1) if 2 * len(grams[row] & answer) >= len(grams[row]))
        found["rank"][query] = 1 / next(hits, float("inf"))
    return found


def long_documents(task: Task, encoder: TextEncoder) -> dict[str, Any]:
    figures: dict[str, Any] = {"files": len(task.files), "questions": len(task.questions)}
    values: dict[str, dict[str, dict[str, float]]] = {}
    room = token_counter(encoder).room
    for name, cut in ways(encoder).items():
        passages = list(dict.fromkeys(passage for text in task.files for passage in cut(text)))
        tokens = token_counter(encoder).count(passages)
        values[name] = answered(task, passages, encoder)
        figures[name] = {
            "passages": len(passages),
            "median tokens": float(np.median(tokens)),
            "not read": sum(max(0, count - room) for count in tokens) / sum(tokens),
            **{measure: compared(values["words"][measure], of) for measure, of in values[name].items()},
        }
        print(name, figures[name], flush=True)
    return figures


def compared(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    change = paired_bootstrap(before, after)
    return {"mean": mean(after), "difference": change.difference, "low": change.low, "high": change.high}


def fragments(folder: Path, encoder: TextEncoder, abstracts: int) -> dict[str, Any]:
    """SciFact's abstracts as files."""
    rows = {row["_id"]: row for row in read_rows(folder / "corpus.jsonl")}
    texts = {row["_id"]: row["text"] for row in read_rows(folder / "queries.jsonl")}
    judged = judgements(folder, "test")
    relevant: dict[str, set[str]] = defaultdict(set)
    for query, passage in judged:
        relevant[query].add(passage)
    needed = {passage for _, passage in judged}
    names = [*needed, *(name for name in rows if name not in needed)][:abstracts]
    cutter = Cutter(token_counter(encoder))
    cuts: dict[str, Cut] = {
        "words": lambda text: list(by_words(text)),
        "ours": lambda text: [piece.text for piece in cutter.cut(text_blocks(text.split("\n")))],
    }
    figures: dict[str, Any] = {"abstracts": len(names), "questions": len(relevant)}
    values: dict[str, dict[str, float]] = {}
    for name, cut in cuts.items():
        passages = [(file, text) for file in names for text in cut(f"{rows[file]['title']}\n\n{rows[file]['text']}")]
        short = [len(text.split()) < FRAGMENT for _, text in passages]
        found = ranked(encoder, [text for _, text in passages], (texts[query] for query in relevant), 100)
        values[name] = {}
        for query, hits in zip(relevant, found):
            files = list(dict.fromkeys(passages[row][0] for row in hits))[:10]
            values[name][query] = ndcg([file in relevant[query] for file in files], len(relevant[query]))
        figures[name] = {
            "passages": len(passages),
            "fragments": sum(short) / len(short),
            "questions with a fragment in the first five": sum(any(short[row] for row in hits[:5]) for hits in found),
            "ndcg@10": compared(values["words"], values[name]),
        }
        print(name, figures[name], flush=True)
    return figures


def ndcg(gains: Sequence[bool], relevant: int) -> float:
    discounts = 1 / np.log2(np.arange(2, 12))
    return float(discounts[: len(gains)] @ np.array(gains)) / float(discounts[: min(relevant, 10)].sum())


def stability(folder: Path, encoder: TextEncoder) -> dict[str, Any]:
    """New passages after one paragraph is inserted into a file of some 300."""
    texts = [row["text"] for row in read_rows(folder / "corpus.jsonl")]
    paragraphs = [text for text in texts if 30 < len(text.split()) < 150][:301]
    *paragraphs, new = paragraphs
    counter = token_counter(encoder)
    figures: dict[str, Any] = {}
    for name, settings in {"ours": CutSettings(), "overlap": CutSettings(overlap=40)}.items():
        cutter = Cutter(counter, settings)

        def cut(parts: list[str], cutter: Cutter = cutter) -> set[str]:
            return {piece.text for piece in cutter.cut(text_blocks("\n\n".join(parts).split("\n")))}

        before = cut(paragraphs)
        changed = [len(cut([*paragraphs[:place], new, *paragraphs[place:]]) - before) for place in range(0, 301, 10)]
        figures[name] = {"passages": len(before), "median": float(np.median(changed)), "most": max(changed)}
    before_words = set(by_words("\n\n".join(paragraphs)))
    changed = [
        len(set(by_words("\n\n".join([*paragraphs[:place], new, *paragraphs[place:]]))) - before_words)
        for place in range(0, 301, 10)
    ]
    figures["words"] = {"passages": len(before_words), "median": float(np.median(changed)), "most": max(changed)}
    print("stability", figures, flush=True)
    return figures


def speed(folder: Path, encoder: TextEncoder) -> dict[str, float]:
    """Megabytes (UTF-8) per second of processor time."""
    english = "\n\n".join(row["text"] for row in read_rows(folder / "corpus.jsonl")[:700])
    chosen = random.Random(0)
    letters = "".join(
        chosen.choice("的一是了我不人在他有这个上们来到时大地为子中你说生国年") + "。" * (chosen.random() < 0.03)
        for _ in range(10**5)
    )
    cutter = Cutter(token_counter(encoder))
    figures = {}
    for name, text in {"English": english, "Chinese": letters, "one word": "a1B" * 10**5}.items():
        start = time.process_time()
        pieces = sum(1 for _ in cutter.cut(text_blocks(text.split("\n"))))
        figures[name] = len(text.encode()) / 1e6 / (time.process_time() - start)
        print(f"{name}: {pieces} passages, {figures[name]:.2f} MB/s", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--abstracts", type=int, default=5183)
    parser.add_argument("--files", type=int, default=100)
    given = parser.parse_args()
    encoder = open_encoder(given.model)
    encoder.quiet = True
    figures = {
        "speed": speed(given.data / "scifact", encoder),
        "stability": stability(given.data / "medquad", encoder),
        "scifact": long_documents(scifact(given.data / "scifact", given.files), encoder),
        "medquad": long_documents(medquad(given.data / "medquad", given.files), encoder),
        "fragments": fragments(given.data / "scifact", encoder, given.abstracts),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""The whole loop, step by step: embed, index, search, measure, log, mine, fit, measure again, decide.

Turns the docstring corpus and one checkpoint into a folder (collection, log, data set, runs, model) and a `DemoReport`.

Guarantees: every figure in the report was measured in this run. The adapter is kept only if the interval of its gain
on held-out queries lies above zero. Runs and judgements are TREC and BEIR files, so that any outside program can
compute the same figures. Needs the extra `export`; no torch but for `full`, and matplotlib for the chart alone.
Does not know: how progress is shown.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama_index_embed_plus.demo.corpus import DocstringCorpus, load_docstrings
from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter, attach_adapter
from llama_index_embed_plus.encoders.cached import CachedQueries
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.evaluate.retrieval.comparison import Comparison, compare
from llama_index_embed_plus.evaluate.retrieval.files import write_qrels, write_queries, write_run
from llama_index_embed_plus.evaluate.retrieval.report import RetrievalReport
from llama_index_embed_plus.evaluate.retrieval.retrieval import evaluate_retrieval, overlap
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.training.adapter.run import AdapterReport, fit_adapter
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.debias.click_rules import clicked_as_positive
from qdrant_tools.errors import UsageError
from qdrant_tools.files.written import refuse_link, write_rows, write_text
from qdrant_tools.log.retrieval_log import RetrievalLog
from qdrant_tools.mining.miner import MiningResult
from qdrant_tools.records import Encoder, Example, Hit, Progress

if TYPE_CHECKING:
    from llama_index_embed_plus.training.settings import TrainSettings


ALIAS = "docstrings"
QUESTIONS = (
    "wait for a subprocess to finish and collect its output",
    "measure how long a small piece of code takes",
    "how do I set a timeout for a network connection?",
    "how do I make a class whose methods must be overridden?",
    "is this object an instance of a generator function?",
)
SHOWN_HITS = 50
_MARKER = ".embed-plus-demo"


class Reporter(Protocol):
    """Shows what is going on: `with reporter.step(name, total) as progress: ... progress(1)`."""

    def step(self, name: str, total: int | None) -> AbstractContextManager[Progress]: ...


@dataclass(frozen=True)
class Systems:
    """The measured systems, in the order they were made: base, adapter, and full with `--full`."""

    reports: dict[str, RetrievalReport]
    comparisons: dict[str, Comparison]


@dataclass(frozen=True)
class Answer:
    """One question and what was found for it."""

    question: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True)
class DemoReport:
    """Everything a run measured. `as_row()` is what `demo-report.json` holds."""

    row: dict[str, Any]
    answers: tuple[Answer, ...]
    systems: Systems
    kept: str

    def as_row(self) -> dict[str, Any]:
        return self.row


class Demo:
    """One run of the loop. Each step is one method, in the order in which `run` calls them."""

    def __init__(
        self,
        folder: Path,
        reporter: Reporter,
        *,
        model: str = "all-MiniLM-L6-v2",
        limit: int | None = None,
        training: TrainSettings | None = None,
    ) -> None:
        self.folder, self.reporter, self.model, self.limit = folder, reporter, model, limit
        self.training = training
        self.seconds: dict[str, float] = {}

    def run(self, *, full: bool = False) -> DemoReport:
        """Run every step and write the data set, runs, log and model into the folder."""
        _fresh(self.folder)
        corpus = self.read()
        encoder = self.open(self.model, "base-model")
        with closing(connect(self.folder / "qdrant")) as client:
            self.manager = CollectionManager(client)
            collection = self.index("embed and index", f"{ALIAS}-base", corpus, encoder)
            self.manager.switch_alias(ALIAS, collection.name)
            answers = self.ask(collection)
            reports = {"base": self.measure("measure base", collection, corpus, encoder)}
            recall = self.check_hnsw(collection, corpus, reports["base"])
            log = self.log(collection, corpus)
            mined = self.mine(collection, log)
            adapter, fitted = self.fit(collection, mined.examples, encoder)
            adapted = AdaptedEncoder(encoder, adapter)
            reports["adapter"] = self.measure("measure adapter", collection, corpus, adapted)
            if full:
                reports["full"] = self.full(corpus, mined.examples)
            comparisons = {name: compare(reports["base"], report) for name, report in reports.items() if name != "base"}
            systems = Systems(reports, comparisons)
            kept = self.decide(adapter, systems)
            described = self.manager.describe(collection.name)
            row = self.row(corpus, systems, kept, fitted, mined) | {
                "engine": described.engine,
                "indexed_vectors": described.indexed_vectors,
                "hnsw_recall@10": recall,
                "space": encoder.space,
            }
        write_data(self.folder, corpus, reports)
        return DemoReport(row, tuple(answers), systems, kept)

    def read(self) -> DocstringCorpus:
        with self.step("read docstrings"):
            return load_docstrings(limit=self.limit)

    def open(self, model: str | Path, out: str) -> Encoder:
        """Write an ONNX build of `model` into the folder `out`, checked against its weights, and open it."""
        with self.step("export to onnx"):
            export_onnx(model, self.folder / out)
        with self.step("load model"):
            return CachedQueries(open_encoder(self.folder / out))

    def index(self, step: str, name: str, corpus: DocstringCorpus, encoder: Encoder) -> Collection:
        collection = self.manager.ensure(name, encoder)
        with self.step(step, len(corpus.passages)) as progress:
            collection.index(corpus.passages, progress=progress)
        # a name of its own, or the second build would be added to the time of the first
        with self.step("build hnsw" if step == "embed and index" else f"build hnsw ({step})"):
            collection.build_index()
        return collection

    def ask(self, collection: Collection) -> list[Answer]:
        with self.step("ask questions"):
            return [Answer(text, tuple(collection.search(text, k=3))) for text in QUESTIONS]

    def measure(self, step: str, collection: Collection, corpus: DocstringCorpus, encoder: Encoder) -> RetrievalReport:
        with self.step(step):
            return evaluate_retrieval(collection, corpus.held_out.queries, corpus.held_out.qrels, encoder)

    def check_hnsw(self, collection: Collection, corpus: DocstringCorpus, report: RetrievalReport) -> float:
        """Return recall@10 of the HNSW run against exact search over the same vectors."""
        with self.step("check hnsw against exact"):
            held_out = corpus.held_out
            exact = evaluate_retrieval(collection, held_out.queries, held_out.qrels, exact=True)
            return overlap(report, exact)

    def log(self, collection: Collection, corpus: DocstringCorpus) -> RetrievalLog:
        """Write a log as a running system would: every train query searched, and a click on what answers it."""
        log = RetrievalLog(self.folder / "log.sqlite")
        queries, qrels = corpus.train.queries, corpus.train.qrels
        with self.step("write retrieval log", len(queries)) as progress:
            for start in range(0, len(queries), 256):
                batch = queries[start : start + 256]
                results = collection.search_batch([query.text for query in batch], k=SHOWN_HITS)
                with log.batch():  # one transaction for all is much faster than one each
                    for query, hits in zip(batch, results):
                        search_id = log.record(query.text, hits, collection=collection.name, space=collection.space)
                        for hit in hits:
                            if hit.id in qrels[query.id]:
                                log.feedback(search_id, hit.id, "click")
                progress(len(batch))
        return log

    def mine(self, collection: Collection, log: RetrievalLog) -> MiningResult:
        labels = clicked_as_positive(log.searches())
        with self.step("mine hard negatives", len({label.query for label in labels})) as progress:
            return collection.mine(labels, progress=progress)

    def fit(
        self, collection: Collection, examples: Sequence[Example], encoder: Encoder
    ) -> tuple[QueryAdapter, AdapterReport]:
        settings = AdapterSettings()
        with self.step("fit query adapter", settings.fits) as progress:
            return fit_adapter(collection, examples, encoder, settings, progress=progress)

    def full(self, corpus: DocstringCorpus, examples: Sequence[Example]) -> RetrievalReport:
        """Fine-tune the whole encoder, embed everything again beside the old collection, switch the alias if better."""
        # loads sentence-transformers, which the rest of the demo does not need
        from llama_index_embed_plus.training.run import planned_steps, train
        from llama_index_embed_plus.training.settings import TrainSettings

        settings, out = self.training or TrainSettings(), self.folder / "checkpoint"
        with self.step("fine-tune", planned_steps(examples, settings)) as progress:
            train(self.model, examples, out, settings, progress=progress)
        tuned = self.open(out, "model-full")
        collection = self.index("re-embed", f"{ALIAS}-full", corpus, tuned)
        return self.measure("measure full", collection, corpus, tuned)

    def decide(self, adapter: QueryAdapter, systems: Systems) -> str:
        """Keep what is proved: the adapter beside the base model, the fine-tuned collection behind the alias."""
        if "full" in systems.comparisons and systems.comparisons["full"].proves_better:
            self.manager.switch_alias(ALIAS, f"{ALIAS}-full")
            return "full"
        if systems.comparisons["adapter"].proves_better:
            attach_adapter(self.folder / "base-model", adapter, self.folder / "model")
            return "adapter"
        return "base"

    def row(
        self, corpus: DocstringCorpus, systems: Systems, kept: str, fitted: AdapterReport, mined: MiningResult
    ) -> dict[str, Any]:
        after = "full" if "full" in systems.reports else "adapter"
        return {
            "documents": len(corpus.passages),
            "train_queries": len(corpus.train.queries),
            "heldout_queries": len(corpus.held_out.queries),
            "before": systems.reports["base"].headline(),
            "after": systems.reports[after].headline(),
            "difference": _interval(systems.comparisons[after]),
            "systems": {name: report.headline() for name, report in systems.reports.items()},
            "differences": {name: _interval(comparison) for name, comparison in systems.comparisons.items()},
            "kept": kept,
            "adapter": {
                "train_pairs": fitted.train_pairs,
                "chosen": fitted.chosen,
                "losses_out_of_fold": fitted.candidates,
                "validation": None if fitted.validation is None else asdict(fitted.validation),
            },
            "mining": {
                "examples": len(mined.examples),
                "negatives": sum(len(example.negatives) for example in mined.examples),
                "discarded": dict(mined.discarded),
            },
            "seconds": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
        }

    @contextmanager
    def step(self, name: str, total: int | None = None) -> Iterator[Progress]:
        """Show a step, and add its duration to the report."""
        started = time.perf_counter()
        with self.reporter.step(name, total) as progress:
            yield progress
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def _interval(comparison: Comparison) -> dict[str, float]:
    interval = comparison.difference
    return {
        "ndcg@10": interval.difference,
        "low": interval.low,
        "high": interval.high,
        "better": comparison.better,
        "worse": comparison.worse,
        "same": comparison.same,
    }


def _fresh(folder: Path) -> None:
    """Empty the folder of an earlier demo, and refuse a link and any other folder that holds something."""
    refuse_link(folder, UsageError)
    marker = folder / _MARKER
    if folder.exists() and any(folder.iterdir()):
        if not marker.exists():
            raise UsageError(f"{folder} is not empty and not an earlier demo's: name another --folder, or remove it")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # written first: a run that is interrupted leaves a folder that the next one may empty
    marker.touch()


Reports = Mapping[str, RetrievalReport]


def write_report(row: Mapping[str, Any], path: Path, *, overwrite: bool = True) -> None:
    """Write the figures as JSON."""
    write_text(path, json.dumps(row, indent=2) + "\n", overwrite=overwrite)


def draw_report(reports: Reports, chart: Path, *, overwrite: bool = True) -> None:
    """Draw the chart as PNG. Raises MissingExtraError without the extra `plot`."""
    from llama_index_embed_plus.evaluate.plots.pages import before_after
    from llama_index_embed_plus.evaluate.plots.style import finish

    base, last = reports["base"], list(reports.values())[-1]
    picture = before_after(
        None,
        {name: report.headline() for name, report in reports.items()},
        differences=[last.ndcg[query] - base.ndcg[query] for query in base.ndcg],
        title=f"Standard library documentation, {len(base.ndcg)} held-out queries",
    )
    finish(picture, chart, overwrite=overwrite)


def write_data(folder: Path, corpus: DocstringCorpus, reports: Reports) -> None:
    """Passages, queries, judgements and runs, for anybody who wants to check the figures."""
    write_rows(folder / "corpus.jsonl", (passage.as_row() for passage in corpus.passages))
    for name, split in (("train", corpus.train), ("heldout", corpus.held_out)):
        write_queries(folder / f"queries-{name}.jsonl", split.queries)
        write_qrels(folder / f"qrels-{name}.tsv", split.qrels)
    for name, report in reports.items():
        write_run(folder / f"run-{name}.trec", report.run, name=name)

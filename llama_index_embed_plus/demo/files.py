"""What a run of the demo leaves behind: a report, a chart, and the data set with its runs.

Guarantees: the runs and judgements are TREC and BEIR files, so that any outside program can compute the same figures.
Does not know: how anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama_index_embed_plus.demo.corpus import DocstringCorpus
from llama_index_embed_plus.evaluate.plots import before_after
from llama_index_embed_plus.evaluate.retrieval import RetrievalReport

Reports = Mapping[str, RetrievalReport]


def write_report(row: Mapping[str, Any], reports: Reports, path: Path, chart: Path) -> None:
    """Write the figures as JSON and the chart as PNG."""
    path.write_text(json.dumps(row, indent=2) + "\n")
    base, last = reports["base"], list(reports.values())[-1]
    before_after(
        chart,
        {name: report.headline() for name, report in reports.items()},
        differences=[last.ndcg[query] - base.ndcg[query] for query in base.ndcg],
        title=f"Standard library documentation, {len(base.ndcg)} held-out queries",
    )


def write_data(folder: Path, corpus: DocstringCorpus, reports: Reports) -> None:
    """Passages, queries, judgements and runs, for anybody who wants to check the figures."""
    _write_rows(folder / "corpus.jsonl", (passage.as_row() for passage in corpus.passages))
    for name, split in (("train", corpus.train), ("heldout", corpus.heldout)):
        _write_rows(folder / f"queries-{name}.jsonl", (query.as_row() for query in split.queries))
        lines = [f"{q}\t{p}\t{grade}" for q, grades in split.qrels.items() for p, grade in grades.items()]
        (folder / f"qrels-{name}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    for name, report in reports.items():
        lines = [
            f"{query} Q0 {passage} {rank} {score!r} {name}"
            for query, hits in report.run.items()
            for rank, (passage, score) in enumerate(hits.items(), start=1)
        ]
        (folder / f"run-{name}.trec").write_text("\n".join(lines) + "\n")


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)

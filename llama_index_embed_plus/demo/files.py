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
from llama_index_embed_plus.evaluate.files import write_qrels, write_queries, write_run
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
        write_queries(folder / f"queries-{name}.jsonl", split.queries)
        write_qrels(folder / f"qrels-{name}.tsv", split.qrels)
    for name, report in reports.items():
        write_run(folder / f"run-{name}.trec", report.run, name=name)


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)

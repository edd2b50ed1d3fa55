"""What indexing files has done -> lines for a person, or one JSON object."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llama_index_embed_plus.cli.console import print_json, say
from llama_index_embed_plus.cli.documents.job import Job
from llama_index_embed_plus.documents.records import CutSettings
from llama_index_embed_plus.documents.sync.files import FilesReport
from qdrant_tools.indexing import IndexReport
from qdrant_tools.search.choosing import SearchReport

NAMED = 5
"""Skipped files that are named at the end."""


def show(job: Job, report: FilesReport, found: SearchReport | None, *, as_json: bool) -> None:
    """Print what was done, and how later searches are made."""
    if as_json:
        print_json(_row(job, report) | {"search": None if found is None else found.as_row()})
        return
    stored, passages = report.stored, report.stored.passages
    would = "dry run, nothing is written: " if job.dry_run else ""
    say(
        f"{would}{job.collection}: {passages.added:,} added, {passages.updated:,} updated, {passages.refreshed:,} "
        f"refreshed, {passages.unchanged:,} unchanged, {stored.removed:,} removed"
    )
    if passages.duplicates:
        first = passages.skipped[0]
        say(
            f"{passages.duplicates:,} near-duplicates not added; the first: {first.passage_id} says nearly "
            f"what {first.of} says (cosine {first.cosine:.3f})"
        )
    if stored.left:
        say(f"passages of files or rows that are gone: {stored.left:,}; --delete-missing removes them")
    if stored.kept:
        say(f"{stored.kept:,} passages stay as they were, of files that could not be read this time")
    if report.cut_before is not None:
        say(f"cut otherwise than the last time: {_difference(report.cut_before, job.cut)}")
    cut = report.cut
    say(
        f"{cut.truncated:,} of {cut.passages:,} passages longer than the model reads ({cut.lost_share:.1%} of the text)"
    )
    if passages.failed:
        say(f"{passages.failed:,} passages were not stored; the first: {passages.failures[0].reason}")
    if report.skipped:
        say(_skipped(report))
    if report.unread_pages:
        counted = ", ".join(f"{count:,} {kind}" for kind, count in report.unread_pages.items())
        say(f"pages of PDFs that were not read: {counted}; pictures need OCR")
    if report.left_out:
        say(f"passed over: {', '.join(f'{count:,} {kind}' for kind, count in report.left_out.items())}")
    if not job.dry_run and passages == IndexReport(unchanged=passages.unchanged) and not stored.removed:
        say("nothing to do: every passage was already indexed")
    if found is not None:
        say(found.sentence)


def _skipped(report: FilesReport) -> str:
    """How many files were skipped, why, and which come first."""
    skipped = report.skipped
    reasons = []
    for reason, count in Counter(each.reason for each in skipped).most_common():
        # what was skipped of rows is named with its line
        paths = (re.sub(r":\d+$", "", each.path) for each in skipped if each.reason == reason)
        endings = Counter(Path(path).suffix or "no ending" for path in paths)
        shown = ", ".join(ending for ending, _ in endings.most_common(NAMED)) + (", ..." * (len(endings) > NAMED))
        reasons.append(f"{count:,} {reason} ({shown})")
    named = "; ".join(
        each.detail if each.detail.startswith(f"{each.path}:") else f"{each.path}: {each.detail or each.reason}"
        for each in skipped[:NAMED]
    )
    more = f"; and {len(skipped) - NAMED:,} more (--json names all)" if len(skipped) > NAMED else ""
    # a file with such rows was read
    files = len({each.path for each in skipped if each.reason not in ("bad row", "empty row")})
    return f"{files:,} of {report.files + files:,} files skipped: {', '.join(reasons)}; the first: {named}{more}"


def _difference(before: CutSettings, now: CutSettings) -> str:
    rows = asdict(before), asdict(now)
    return ", ".join(f"{name} {rows[0][name]} -> {rows[1][name]}" for name in rows[0] if rows[0][name] != rows[1][name])


def _row(job: Job, report: FilesReport) -> dict[str, Any]:
    passages = asdict(report.stored.passages)
    for name in ("deleted", "failures", "skipped"):
        del passages[name]
    stored, cut = report.stored, report.cut
    return {
        "collection": job.collection,
        "source": report.source,
        "dry_run": job.dry_run,
        **passages,
        "removed": stored.removed,
        "removed_of_changed_files": stored.replaced,
        "removed_of_gone_files": stored.gone,
        "left_of_gone_files": stored.left,
        "kept_of_unread_files": stored.kept,
        "documents": cut.documents,
        "passages": cut.passages,
        "truncated": cut.truncated,
        "truncated_share": cut.lost_share,
        "files": report.files,
        "skipped": [asdict(each) for each in report.skipped],
        "left_out": dict(report.left_out),
        "encodings": dict(report.encodings),
        "unread_pages": dict(report.unread_pages),
        "duplicate_of": [asdict(each) for each in stored.passages.skipped],
        "failures": [asdict(each) for each in stored.passages.failures],
    }

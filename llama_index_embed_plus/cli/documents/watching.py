"""`embed-plus index --watch`: a folder -> its collection in step with it, until Ctrl-C.

Guarantees: nothing is removed because a disk is away. Does not know: how changes are noticed.
"""

from __future__ import annotations

import os
import time
from pathlib import PurePosixPath

from llama_index_embed_plus.cli.console import interrupted, note
from llama_index_embed_plus.cli.documents.indexed import show
from llama_index_embed_plus.cli.documents.job import Job, run_job
from llama_index_embed_plus.documents.sync.files import FilesReport
from llama_index_embed_plus.documents.sync.watch import changes
from llama_index_embed_plus.errors import SourceGoneError
from qdrant_tools.errors import InputError, LocationBusyError, PlusError, UnreachableError
from qdrant_tools.indexing import IndexReport
from qdrant_tools.search.choosing import SearchReport


class _Watch:
    """Indexes a folder, then what changes in it."""

    def __init__(self, job: Job, *, as_json: bool) -> None:
        self.job, self.as_json = job, as_json
        self.running = False
        self._pending: set[str] = set()
        self._whole = self._again = True
        self._said = ""

    def go_on(self) -> None:
        """Follow the folder for as long as it is there; raises `SourceGoneError` when it is not."""
        self._whole = self._again = True
        for changed in changes(self.job.path):
            self._pending |= changed
            if (self._whole or self._pending) and (changed or self._again):
                self._step()

    def tell(self, text: str) -> None:
        """Say it, but not again and again."""
        if text != self._said:
            note(text)
        self._said = text

    def _step(self) -> None:
        self.running = True
        try:
            report, found = self._run()
        except (LocationBusyError, UnreachableError) as error:
            self._again = True
            self.tell(f"{error}; trying again")
        except PlusError as error:
            # until something changes
            self._again = False
            self.tell(str(error))
        else:
            stored = report.stored
            if self._whole or stored.removed or stored.passages != IndexReport(unchanged=stored.passages.unchanged):
                show(self.job, report, found, as_json=self.as_json)
            self._pending, self._whole, self._again, self._said = set(), False, False, ""
        self.running = False

    def _run(self) -> tuple[FilesReport, SearchReport | None]:
        if self._whole:
            return run_job(self.job, self.job.files(), lambda done: None)
        if not any(files for _, _, files in os.walk(self.job.path)):
            raise InputError(f"{self.job.path} is empty now: nothing is removed, for it may be a disk that is away")
        return run_job(self.job, self.job.files(self._is_meant), lambda done: None, within=self._is_meant)

    def _is_meant(self, file: str) -> bool:
        path = PurePosixPath(file)
        return any(str(each) in self._pending for each in (path, *path.parents))


def keep_in_step(job: Job, *, as_json: bool) -> None:
    """Until Ctrl-C."""
    watch = _Watch(job, as_json=as_json)
    try:
        while True:
            try:
                watch.go_on()
            except SourceGoneError as error:
                watch.tell(f"{error}: nothing is removed; waiting for it to come back")
                while not job.path.is_dir():
                    time.sleep(1)
    except KeyboardInterrupt:
        if watch.running:
            interrupted("what was stored stays; run the same command again to go on")
        note("stopped")

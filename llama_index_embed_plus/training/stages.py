"""A recipe -> the encoder that its best stage made: train, mine with the new model, train again, each stage measured.

Hard negatives of a round are mined in the space of the model as it is then (ANCE, Xiong et al. 2021, arXiv 2007.00808,
once per round): the passages are embedded anew in a collection of their own, and mined by the rules of
`qdrant_tools.mining`.

Every stage leaves an artifact in a folder beside the output, under a name that follows from everything it was made of.
Guarantees: the same call after an interruption goes on within the stage where it was; a changed recipe repeats only
what the change touches; held-out queries are in no stage's data; the proof compares the best stage with the first base.
Does not know: the format of a recipe.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path

import numpy as np

from llama_index_embed_plus.documents.reading import read_passages
from llama_index_embed_plus.documents.row_files import SUFFIXES
from llama_index_embed_plus.encoders.open import identify, open_encoder
from llama_index_embed_plus.errors import TrainingError
from llama_index_embed_plus.evaluate.retrieval.files import read_held_out
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.models import hub as checkpoints
from llama_index_embed_plus.models.files import write_json
from llama_index_embed_plus.training.data.reading import read_training_data
from llama_index_embed_plus.training.data.records import TrainingData
from llama_index_embed_plus.training.proof.corpus import SearchCorpus
from llama_index_embed_plus.training.proof.model_card import write_report
from llama_index_embed_plus.training.proof.report import Stage, TrainReport, read_report
from llama_index_embed_plus.training.recipe import QueryFiles, Recipe, StagePlan, read_recipe, with_base
from llama_index_embed_plus.training.run import Evidence, TrainingJob, planned_steps, train
from llama_index_embed_plus.training.trainer.checkpoint import fingerprint
from llama_index_embed_plus.training.trainer.distributed import world_size
from llama_index_embed_plus.training.trainer.progress import report_metric
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import UsageError
from qdrant_tools.files.json_files import read_json
from qdrant_tools.files.trees import files_of
from qdrant_tools.files.written import private_folder
from qdrant_tools.indexing import index_passages
from qdrant_tools.metrics import ndcg, recall, reciprocal_rank
from qdrant_tools.mining.file import mine_to_jsonl, read_examples
from qdrant_tools.records import SYNTHETIC, Encoder, Example, HeldOut, Label, Passage, Progress, ScoredText
from qdrant_tools.same import id_key, query_key

Announce = Callable[[str], None]
"""Told what begins: `train nli`, `mine hard-1`, `measure hard-1`."""

CHOSEN_ON_HELD_OUT = "the best stage was chosen on the held-out queries: the gain looks a little larger than it is"

_METRICS = {"ndcg@10": ndcg, "mrr": reciprocal_rank, "recall@10": recall}
_OF_A_STAGE = re.compile(r"\..*|base\.metrics\.json|([\w-]+-)?[0-9a-f]{12}(\.\w+)*")


def run_recipe(
    recipe: str | Path | Recipe,
    out: Path,
    *,
    base: str | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
) -> TrainReport:
    """Run the stages of a recipe, or go on with them, and write the best stage's artifact to `out`.

    base: takes the place of the recipe's. progress: called after each optimiser step, `recipe_steps` times.
    Without held-out and dev queries nothing can be compared, and the last stage is kept.

    Raises what `read_recipe` and `train` raise.
    """
    if world_size() > 1:
        raise UsageError("a recipe runs in one process: start it without a launcher, or train its stages one by one")
    artifact.check_out(Path(out))
    read = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    return _RecipeRun(with_base(read, base), Path(out), progress, announce or (lambda what: None)).run()


def recipe_steps(recipe: Recipe) -> int:
    """Return about how many optimiser steps all stages take together."""
    return sum(stage.rounds * planned_steps(_data(stage, recipe.passages), stage.settings) for stage in recipe.stages)


@dataclass(frozen=True)
class _Step:
    """One training: a stage, or one round of it. `key` names everything that it depends on."""

    name: str
    plan: StagePlan
    data: TrainingData
    key: str


class _RecipeRun:
    """One run of a recipe. What is done lies in `work`, and is not done again."""

    def __init__(self, recipe: Recipe, out: Path, progress: Progress | None, announce: Announce) -> None:
        self.recipe, self.out, self.progress, self.announce = recipe, out, progress, announce
        self.work = out.parent / f".{out.name}-stages"
        self.base = checkpoints.resolve(str(recipe.base))
        self.passages = list(_passages(recipe.passages, self.base)) if recipe.passages is not None else []
        # a passage's own text goes before another spelling of it
        self._ids = {query_key(passage.text): passage.id for passage in reversed(self.passages)}
        self._ids |= {f"\0{passage.text}": passage.id for passage in self.passages}
        self.held_out = self.read_queries_of(recipe.held_out)
        self.dev = self.read_queries_of(recipe.dev) or self.held_out
        self.corpus = SearchCorpus(self.dev, None, most=50_000, seed=0) if self.dev is not None else None
        self.leaked: dict[str, int] = {}

    def run(self) -> TrainReport:
        started = time.perf_counter()
        steps = list(self.steps())  # leaks are looked for in the data of all of them, before the first is trained
        self.open_work()
        folders, stages = [self.base], [Stage("base", 0, self.measured("base", self.base, "base"))]
        for step in steps:
            began = time.perf_counter()
            folders.append(self.trained(step, folders[-1]))
            report = read_report(folders[-1])
            metrics = self.measured(step.name, folders[-1], step.key)
            stages.append(Stage(step.name, len(report.losses) if report else 0, metrics, time.perf_counter() - began))
        best = self.best(stages)
        report = self.write(folders[1 : best + 1], stages, steps, seconds=time.perf_counter() - started)
        # only now: an interrupted call goes on from what lies there
        shutil.rmtree(self.work, ignore_errors=True)
        return report

    def open_work(self) -> None:
        """Make the folder of the stages, or go on in it. Raises UsageError if it holds links, or files of no recipe."""
        private_folder(self.work)
        self.work.chmod(0o700)  # one that an earlier version made
        # the folder may come with a recipe from somebody else: nothing is read, written or removed through a link
        files_of(self.work, error=UsageError)
        others = [name for name in sorted(os.listdir(self.work)) if not _OF_A_STAGE.fullmatch(name)]
        if others:
            raise UsageError(
                f"{self.work} holds {others[0]!r}, which no recipe made: move it away, or give another out"
            )

    def steps(self) -> Iterator[_Step]:
        """The trainings in order, each keyed by the base, the data and settings up to it."""
        key = open_encoder(self.base, backend="torch").space
        for plan in self.recipe.stages:
            data = _data(plan, {passage.id: passage.text for passage in self.passages} or None)
            if plan.mining is not None:
                data = replace(data, rows=tuple(self.with_ids(example) for example in data.examples))
            job = self.job(data, plan).without_leaks()
            data, self.leaked[plan.name] = job.data, job.leaked
            rows = (asdict(row) if is_dataclass(row) else row for row in data.rows)
            mining = plan.mining.as_row() if plan.mining else None
            contents = [fingerprint(rows), plan.settings.as_dict(), mining]
            if mining:
                # other passages are other negatives; a step that mines nothing does not depend on them
                contents.append(fingerprint(passage.as_row() for passage in self.passages))
            for number in range(1, plan.rounds + 1):
                key = fingerprint([key, contents])
                yield _Step(plan.name if plan.mining is None else f"{plan.name}-{number}", plan, data, key)

    def trained(self, step: _Step, current: Path) -> Path:
        """The artifact of a step; trained now if it is not there."""
        folder = self.work / f"{step.name}-{step.key}"
        if artifact.is_artifact(folder):
            artifact.verify(folder)  # what an interrupted call sealed
        else:
            data = step.data if step.plan.mining is None else self.mined(step, current)
            self.announce(f"train {step.name}")
            train(current, data, folder, step.plan.settings, progress=self.progress)
        return folder

    def mined(self, step: _Step, current: Path) -> TrainingData:
        """Hard negatives for the step's queries, by the model as it is now, in its own space."""
        assert step.plan.mining is not None
        file = self.work / f"{step.name}-{step.key}.jsonl"
        place = self.work / f"{step.name}-{step.key}.index"
        if not (finished := file.with_suffix(".done")).exists():
            self.announce(f"mine {step.name}")
            encoder = open_encoder(current, backend="torch", device=step.plan.settings.device)
            with closing(connect(place)) as client:
                collection = CollectionManager(client).ensure("passages", encoder)
                index_passages(collection, self.pool(step.data), encoder)
                mine_to_jsonl(collection, labels_of(step.data), encoder, path=file, settings=step.plan.mining)
            finished.touch()  # last: a file without this mark may be half written
            shutil.rmtree(place, ignore_errors=True)
        return TrainingData.of(_weighted(read_examples(file), step.data))

    def pool(self, data: TrainingData) -> Iterator[Passage]:
        """What is mined from: the recipe's passages, and what the examples bring along beside them."""
        ids = {id_key(passage.id) for passage in self.passages}
        yield from self.passages
        for example in data.examples:
            for text in (*example.positives, *example.negatives):
                if id_key(text.id) not in ids:
                    ids.add(id_key(text.id))
                    yield Passage(text.id, text.text)

    def with_ids(self, example: Example) -> Example:
        """Positives under the ids that the passages have, for files that hold texts only."""

        def named(text: ScoredText) -> ScoredText:
            by_text = self._ids.get(f"\0{text.text}") or self._ids.get(query_key(text.text))
            return replace(text, id=by_text or text.id)

        return replace(example, positives=tuple(map(named, example.positives)))

    def measured(self, name: str, folder: Path, key: str) -> dict[str, float]:
        """nDCG@10, MRR and recall@10 of a stage on the dev queries, by exact search. {} without queries."""
        if self.dev is None or self.corpus is None:
            return {}
        place = self.work / f"{key}.metrics.json"
        measured = fingerprint([self.dev_key(), identify(folder, backend="torch").space])
        metrics = _stored_metrics(place, measured)
        if metrics is None:
            self.announce(f"measure {name}")
            metrics = self.metrics(open_encoder(folder, backend="torch"))
            write_json(place, {"of": measured, "metrics": metrics})
        report_metric(self.progress, f"ndcg@10 after {name}", metrics["ndcg@10"])
        return metrics

    def metrics(self, encoder: Encoder) -> dict[str, float]:
        assert self.dev is not None and self.corpus is not None
        ids = [query.id for query in self.dev.answerable]
        queries = encoder.encode_queries([query.text for query in self.dev.answerable])
        run = self.corpus.run(self.corpus.vectors(encoder), ids, queries, k=10)
        qrels = {name: self.corpus.qrels[name] for name in ids}
        return {name: float(np.mean(list(metric(qrels, run, k=10).values()))) for name, metric in _METRICS.items()}

    def dev_key(self) -> str:
        assert self.dev is not None
        passages = [[passage.id, passage.text] for passage in self.passages]
        return fingerprint([[asdict(query) for query in self.dev.queries], dict(self.dev.qrels), passages])

    def best(self, stages: list[Stage]) -> int:
        """The number of the stage to keep: the best by nDCG@10, the earlier of two equals; never the base itself."""
        if self.dev is None:
            return len(stages) - 1
        # `-i` lets the earlier of two equals win
        return max(range(1, len(stages)), key=lambda i: (stages[i].metrics["ndcg@10"], -i))

    def write(self, made: list[Path], stages: list[Stage], steps: list[_Step], *, seconds: float) -> TrainReport:
        """Copy the best stage's artifact, and say of it what the whole recipe did."""
        best = made[-1]
        reports = [report for folder in made if (report := read_report(folder)) is not None]
        last = reports[-1]
        job = self.job(steps[len(made) - 1].data, steps[len(made) - 1].plan)
        before, after = job.open_base(), open_encoder(best, backend="torch")
        chosen = (f"the best of {len(steps)} trainings is {steps[len(made) - 1].name}",) if self.dev else ()
        on_held_out = self.dev is not None and self.dev is self.held_out and len(steps) > 1
        optimistic = (CHOSEN_ON_HELD_OUT,) if on_held_out else ()
        proof = job.proof(before, after)  # before anything is written: a kill meanwhile leaves nothing beside `work`
        with artifact.draft_folder(self.out) as draft:
            artifact.copy_artifact(best, draft)
            report = job.report(
                space=after.space,
                base_space=before.space,
                data={**last.data, **self.left_out(steps[len(made) - 1].plan)},
                losses=tuple(loss for done in reports for loss in done.losses),
                stages=tuple(stages[1:]),  # without the base, which is no stage
                proof=proof,
                notes=(*(note for done in reports for note in done.notes), *chosen, *optimistic),
                seconds=seconds,
            )
            write_report(draft, report)
            artifact.write_manifest(draft)
        return report

    def left_out(self, plan: StagePlan) -> dict[str, int]:
        """How many synthetic rows of a stage knew a held-out query, if any did."""
        leaked = self.leaked[plan.name]
        return {"synthetic_leaks": leaked} if leaked else {}

    def job(self, data: TrainingData, plan: StagePlan) -> TrainingJob:
        """The stage as one call of `train` on the first base: for the leak check, the proof and the report."""
        evidence = Evidence(self.held_out) if self.held_out is not None else None
        name = Path(str(self.recipe.base)).name if self.base.exists() else str(self.recipe.base)
        return TrainingJob(name, self.base, data, self.out, plan.settings, evidence, None)

    def read_queries_of(self, files: QueryFiles | None) -> HeldOut | None:
        if files is None:
            return None
        return read_held_out(files.queries, files.qrels, passages=self.passages)


def _stored_metrics(file: Path, measured: str) -> dict[str, float] | None:
    """The metrics that an earlier call wrote for what `measured` names, if it did."""
    try:
        stored = read_json(file)
    except FileNotFoundError:
        return None
    metrics = stored.get("metrics") if isinstance(stored, dict) and stored.get("of") == measured else None
    if not isinstance(metrics, dict) or set(metrics) != set(_METRICS):
        return None
    known = {name: metrics[name] for name in _METRICS}
    return known if all(type(value) is float and 0 <= value <= 1 for value in known.values()) else None


def labels_of(data: TrainingData) -> Iterator[Label]:
    """Labels for the miner: every positive of every query, with the weight of its example."""
    for example in data.examples:
        for positive in example.positives:
            yield Label(example.query, positive.id, example.weight, SYNTHETIC if example.synthetic else "recipe")


def _weighted(mined: Iterable[Example], data: TrainingData) -> Iterator[Example]:
    """Mined examples with the weights that their queries had."""
    weights: dict[str, float] = {}
    for example in data.examples:
        # the miner makes one example of a query, also where the data has several rows of it
        key = query_key(example.query)
        weights[key] = max(example.weight, weights.get(key, 0.0))
    any_mined = False
    for example in mined:
        any_mined = True
        yield replace(example, weight=weights.get(query_key(example.query), example.weight))
    if not any_mined:
        raise TrainingError(f"nothing was mined for {len(weights)} queries: none of their positives is in the passages")


def _passages(path: Path, base: Path) -> Iterator[Passage]:
    """Rows as they are; files cut for the first base, whose passages all stages search."""
    is_file_of_rows = path.suffix.lower() in SUFFIXES
    return read_passages(path, None if is_file_of_rows else open_encoder(base, backend="torch"), whole_rows=True)


def _data(plan: StagePlan, passages: Path | Mapping[str, str] | None) -> TrainingData:
    """The rows of a stage, with the queries that its augmentation adds. Raises UsageError if they have no queries."""
    data = read_training_data(
        plan.data,
        kind=plan.kind,
        score_range=plan.score_range,
        relevant_from=plan.relevant_from,
        split=plan.split,
        ignore=plan.ignore,
        passages=plan.passages or passages,
    )
    if plan.augmentation is None:
        return data
    return replace(data, rows=tuple(plan.augmentation.apply(data.examples)))

"""A recipe file -> what to train, stage after stage, as frozen values.

::

    base = "all-MiniLM-L6-v2"
    passages = "passages.jsonl"          # what is mined from, and searched for held-out queries
    epochs = 1                           # any setting of `TrainSettings`, for every stage

    [heldout]                            # decides whether the result may serve
    queries = "queries.jsonl"
    qrels = "qrels.tsv"

    [dev]                                # picks the best stage; without it, the held-out queries do
    queries = "dev-queries.jsonl"
    qrels = "dev-qrels.tsv"

    [[stage]]
    name = "nli"
    data = "nli.jsonl"                   # any file of `data.read_training_data`
    max_tokens = 64                      # settings of this stage

    [[stage]]
    name = "similarity"
    data = "sts.csv"
    score_range = [0, 5]
    loss = "cosent"

    [[stage]]
    name = "judged"
    data = "judged.csv"
    relevant_from = 2                    # also split = "train", ignore = ["source"], passages = "texts.jsonl"

    [[stage]]
    name = "hard"
    data = "pairs.jsonl"
    rounds = 2                           # mine with the current model, train on what was mined; as often as this
    mine = { negatives = 4, depth = 200 } # any setting of `MiningSettings`
    augment = { words = "crop", share = 0.3 }   # further queries; any setting of `QueryAugmentation`

Paths are relative to the file, and may lead anywhere: a recipe is trusted to name what is trained on, as a command is.
Guarantees: a key that is not known, a value of the wrong kind, or a file that is not
there is UsageError with the file, the place and what was expected, before anything is loaded.
Does not know: models, what is in the data.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from llama_index_embed_plus.training.data.augmentation import QueryAugmentation
from llama_index_embed_plus.training.data.records import Kind
from llama_index_embed_plus.training.limits import check_whole, is_number
from llama_index_embed_plus.training.losses.catalogue import LossOptions
from llama_index_embed_plus.training.proof.proof import ProofSettings
from llama_index_embed_plus.training.settings import LoraSettings, Projection, TrainSettings
from qdrant_tools.errors import PlusError, UsageError, brief, first_line
from qdrant_tools.files.json_files import read_text
from qdrant_tools.mining.rules import MiningSettings

Table = Mapping[str, Any]

_TABLES = {"lora": LoraSettings, "projection": Projection, "proof": ProofSettings}
_FORBIDDEN = {"adapter"}
_MOST_BYTES, _MOST_DOTS = 1 << 17, 200
"""A recipe of hundreds of stages is smaller."""
_MOST_STAGES, _MOST_ROUNDS, _LONGEST_NAME = 100, 100, 100
_LARGEST = 10_000_000_000
_STAGE_KEYS = (
    "name",
    "data",
    "kind",
    "score_range",
    "relevant_from",
    "split",
    "ignore",
    "passages",
    "rounds",
    "mine",
    "augment",
)
_RECIPE_KEYS = ("base", "passages", "heldout", "dev", "stage")


@dataclass(frozen=True)
class QueryFiles:
    """Files of queries and of judgements about them."""

    queries: Path
    qrels: Path


@dataclass(frozen=True)
class StagePlan:
    """One stage: train on `data`. With `mining`, it is repeated `rounds` times on what the current model finds.

    kind, score_range, relevant_from, split, ignore: how to read the file, as in `read_training_data`.
    passages: the texts of ids in it, if they are others than the recipe's.
    augmentation: adds examples with other queries.
    """

    name: str
    data: Path
    settings: TrainSettings = TrainSettings()
    kind: Kind | None = None
    score_range: tuple[float, float] | None = None
    relevant_from: float | None = None
    split: str | None = None
    ignore: tuple[str, ...] = ()
    passages: Path | None = None
    mining: MiningSettings | None = None
    rounds: int = 1
    augmentation: QueryAugmentation | None = None

    def __post_init__(self) -> None:
        # a name becomes one of a folder
        if not re.fullmatch(rf"[\w-]{{1,{_LONGEST_NAME}}}", self.name):
            raise UsageError(f"name is {brief(self.name)}, expected letters, digits, - and _, at most {_LONGEST_NAME}")
        check_whole("rounds", self.rounds, least=-(10**9), most=_MOST_ROUNDS)
        if self.rounds < 1 or (self.rounds > 1 and self.mining is None):
            raise UsageError(f"rounds is {self.rounds}, expected at least 1, and more only with mine = {{...}}")
        if self.settings.method == "adapter":
            raise UsageError("method 'adapter' trains no encoder: fit it on the result, with train")
        if self.settings.method == "lora" and not self.settings.lora.merge:
            raise UsageError("a LoRA that is kept apart cannot be trained further: leave lora.merge on")


@dataclass(frozen=True)
class Recipe:
    """Stages in order. `base` may be left to the caller."""

    stages: tuple[StagePlan, ...]
    base: str | None = None
    passages: Path | None = None
    held_out: QueryFiles | None = None
    dev: QueryFiles | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names) or len(names) > _MOST_STAGES:
            expected = f"at least one and at most {_MOST_STAGES}, each with a name of its own"
            raise UsageError(f"the stages are {brief(names)}, expected {expected}")
        if (self.held_out or self.dev) and self.passages is None:
            raise UsageError("held-out queries need passages to search: name the file in passages")


def read_recipe(path: str | Path) -> Recipe:
    """Read a TOML recipe. Raises UsageError naming the file and the place of what is wrong."""
    file = Path(path)
    try:
        text = read_text(file, most=_MOST_BYTES, error=UsageError)
        # tomllib takes quadratic time for a key of many parts
        if max(map(_dots_of, text.splitlines()), default=0) > _MOST_DOTS:
            raise UsageError(f"{file} has a line with more than {_MOST_DOTS} dots: this is no recipe")
        table = tomllib.loads(text)
    except UsageError:
        raise
    # ValueError also for a number of more than 4,300 digits; RecursionError for a depth beyond Python's stack
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"recipe {file} cannot be read ({reason}): expected a TOML file") from error
    return _Reader(file).recipe(table)


def _dots_of(line: str) -> int:
    return line.count(".")


class _Reader:
    """Reads the tables of one file; every error says where in it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def recipe(self, table: Table) -> Recipe:
        names = {field.name for field in fields(TrainSettings)} - _FORBIDDEN
        self.check_keys(table, "", (*_RECIPE_KEYS, *sorted(names)))
        shared = {key: value for key, value in table.items() if key in names}
        stages = table.get("stage", [])
        if not isinstance(stages, list) or len(stages) > _MOST_STAGES:
            raise self.error("stage", f"is {brief(stages)}, expected up to {_MOST_STAGES} [[stage]] tables")
        plans = tuple(self.stage(row, f"stage {i}", shared) for i, row in enumerate(stages, start=1))
        passages = self.existing(table, "", "passages") if "passages" in table else None
        held_out, dev = (self.query_files(table[key], key) if key in table else None for key in ("heldout", "dev"))
        base = self.typed(table, "", "base", str) if "base" in table else None
        with self.at(""):
            return Recipe(plans, base, passages, held_out, dev)

    def stage(self, row: Any, where: str, shared: Table) -> StagePlan:
        if not isinstance(row, Mapping):
            raise self.error(where, f"is {brief(row)}, expected a table")
        names = {field.name for field in fields(TrainSettings)} - _FORBIDDEN
        self.check_keys(row, where, (*_STAGE_KEYS, *sorted(names)))
        for key in ("name", "data"):
            if key not in row:
                raise self.error(where, f"has no {key}")
        settings = self.settings({**shared, **{key: value for key, value in row.items() if key in names}}, where)
        kind = self.typed(row, where, "kind", str) if "kind" in row else None
        if kind is not None and kind not in get_args(Kind):
            raise self.error(f"{where}: kind", f"is {brief(kind)}, expected one of {', '.join(get_args(Kind))}")
        with self.at(where):
            return StagePlan(
                name=self.typed(row, where, "name", str),
                data=self.existing(row, where, "data"),
                settings=settings,
                kind=kind,
                score_range=self.score_range(row, where),
                relevant_from=self.number(row, where, "relevant_from"),
                split=self.typed(row, where, "split", str) if "split" in row else None,
                ignore=self.names(row, where, "ignore"),
                passages=self.existing(row, where, "passages") if "passages" in row else None,
                mining=self.built(MiningSettings, row["mine"], f"{where}: mine") if "mine" in row else None,
                rounds=self.typed(row, where, "rounds", int) if "rounds" in row else 1,
                augmentation=(
                    self.built(QueryAugmentation, row["augment"], f"{where}: augment") if "augment" in row else None
                ),
            )

    def settings(self, given: Table, where: str) -> TrainSettings:
        values = dict(given)
        for key, kind in _TABLES.items():
            if key in values:
                values[key] = self.built(kind, values[key], f"{where}: {key}")
        settings: TrainSettings = self.built(TrainSettings, values, where)
        with self.at(where):
            LossOptions.of(settings.loss, settings.loss_options)
        return settings

    def built(self, kind: type[Any], values: Any, where: str) -> Any:
        """A settings value from a table: keys and types checked against its fields, lists become tuples."""
        if not isinstance(values, Mapping):
            raise self.error(where, f"is {brief(values)}, expected a table")
        hints = get_type_hints(kind)
        self.check_keys(values, where, tuple(hints))
        # frozen settings hold tuples, TOML has lists
        arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        for key, value in arguments.items():
            # most settings have closer limits of their own
            is_too_large = isinstance(value, int) and abs(value) > _LARGEST
            if is_too_large or not _fits(value, hints[key]):
                expected = f"at most {_LARGEST:,}" if is_too_large else _named(hints[key])
                raise self.error(f"{where}: {key}" if where else key, f"is {brief(value)}, expected {expected}")
        with self.at(where):
            return kind(**arguments)

    def query_files(self, row: Any, where: str) -> QueryFiles:
        if not isinstance(row, Mapping):
            raise self.error(where, f"is {brief(row)}, expected a table with queries and qrels")
        self.check_keys(row, where, ("queries", "qrels"))
        return QueryFiles(self.existing(row, where, "queries"), self.existing(row, where, "qrels"))

    def score_range(self, row: Table, where: str) -> tuple[float, float] | None:
        score_range = row.get("score_range")
        if score_range is None:
            return None
        match score_range:
            case [lowest, highest] if is_number(lowest) and is_number(highest):
                return float(lowest), float(highest)
            case _:
                what = f"is {brief(score_range)}, expected two numbers, the lowest and the highest"
                raise self.error(f"{where}: score_range", what)

    def number(self, row: Table, where: str, key: str) -> float | None:
        value = row.get(key)
        if value is not None and not is_number(value):
            raise self.error(f"{where}: {key}", f"is {brief(value)}, expected a number")
        return None if value is None else float(value)

    def names(self, row: Table, where: str, key: str) -> tuple[str, ...]:
        values = row.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise self.error(f"{where}: {key}", f"is {brief(values)}, expected a list of names of fields")
        return tuple(values)

    def existing(self, row: Table, where: str, key: str) -> Path:
        path: Path = self.file.parent / self.typed(row, where, key, str)
        if not _is_there(path):
            raise self.error(f"{where}: {key}" if where else key, f"names {str(path)[:300]}, which does not exist")
        return path

    def typed(self, row: Table, where: str, key: str, kind: type[Any]) -> Any:
        value = row.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):  # True is an int
            expected = {str: "a text", int: "a whole number"}[kind]
            raise self.error(f"{where}: {key}" if where else key, f"is {brief(value)}, expected {expected}")
        return value

    def check_keys(self, row: Table, where: str, known: tuple[str, ...]) -> None:
        for key in row:
            if key not in known:
                raise self.error(where, f"has an unknown key {brief(key)}, expected one of {', '.join(known)}")

    def error(self, where: str, what: str) -> UsageError:
        return UsageError(f"{self.file}: {where or 'the recipe'} {what}")

    def at(self, where: str) -> _Located:
        return _Located(self, where)


class _Located:
    """Adds the file and the place to an error about a value."""

    def __init__(self, reader: _Reader, where: str) -> None:
        self.reader, self.where = reader, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # an error that names its place already is left as it is
        if isinstance(error, PlusError) and not str(error).startswith(str(self.reader.file)):
            raise UsageError(f"{self.reader.file}: {self.where or 'the recipe'}: {error}") from error


def with_base(recipe: Recipe, base: str | None) -> Recipe:
    """The recipe for another base. Raises UsageError if none is named at all."""
    if base is None and recipe.base is None:
        raise UsageError('the recipe names no base: write base = "MODEL", or give one')
    return recipe if base is None else replace(recipe, base=base)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value is of the kind that a field wants. Literals and tables check themselves."""
    # a union `A | B` has arguments and no `__origin__`; Literal and tuple[...] have both
    allowed = get_args(hint) if get_args(hint) and not hasattr(hint, "__origin__") else (hint,)
    for alternative in allowed:
        origin = getattr(alternative, "__origin__", alternative)
        # TOML's 1 is an int, also where 1.0 is meant
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return True
        if origin is int and isinstance(value, bool):
            continue
        if origin is tuple and isinstance(value, tuple):
            # tuple[str, ...]: all of one kind
            return all(_fits(each, get_args(alternative)[0]) for each in value)
        if not isinstance(origin, type) or isinstance(value, origin):
            return True
    return False


def _named(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))

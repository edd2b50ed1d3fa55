"""The options that the commands of training share, those of `train`, and the file of examples that some of them name.

Does not know: what a command does with the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from llama_index_embed_plus.cli.console import note

if TYPE_CHECKING:  # needs the extra `train`: loaded by the commands, so that their help does not wait for it
    from llama_index_embed_plus.training.data.records import TrainingData

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Texts = Annotated[
    bool, typer.Option(help="Keep the held-out queries' texts in the report, which is copied with the model.")
]

Trained = Annotated[str, typer.Option("--model", help="The trained model, a folder.")]
Base = Annotated[str, typer.Option(help="The model that training started from, a name or a folder.")]
RelevantFrom = Annotated[
    float | None, typer.Option(help="Judged pairs: from which grade or score on a passage answers its query.")
]
Split = Annotated[str | None, typer.Option(help="The split to read, where the examples have a column of splits.")]
Ignored = Annotated[
    list[str] | None, typer.Option("--ignore", help="A field of the examples to leave unread; may be repeated.")
]
PassagesOfExamples = Annotated[
    Path | None, typer.Option("--passages", help="Id and text of passages, for examples that name them by their ids.")
]
ExamplesKind = Annotated[
    str | None,
    typer.Option(help="What the examples are (pairs, triplets, judged pairs, ...), where their fields do not tell."),
]

Method = Literal["adapter", "lora", "full"]

Out = Annotated[Path, typer.Option(help="The folder to write the model to.")]
Searched = Annotated[
    str | None, typer.Argument(help="An adapter is fitted to its vectors; held-out queries search its passages.")
]
Examples = Annotated[
    Path | None,
    typer.Option(
        help="What to train on: the file that `mine` wrote, or pairs, triplets, NLI, ... Without it, an adapter is "
        "made of the passages alone."
    ),
]
Recipe = Annotated[
    Path | None, typer.Option(help="Stages to train in order, .toml, instead of the options on training.")
]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="What is trained: a map on query vectors (adapter), low-rank updates of the encoder (lora), or "
        "all of its weights (full)."
    ),
]
HeldOutQueries = Annotated[
    Path | None, typer.Option(help="Held-out queries: .jsonl rows with an id and a text; needs --qrels.")
]
HeldOutQrels = Annotated[Path | None, typer.Option(help="Their judgements, BEIR's TSV; needs --queries.")]
HeldOutShare = Annotated[
    float,
    typer.Option(
        help="The share of the examples that is held out instead, near-duplicate queries together; real ones "
        "if there are any."
    ),
]
CrossFit = Annotated[
    int,
    typer.Option(
        help="For an adapter and few queries: part the examples into so many folds, and let every query decide, "
        "ranked by an adapter that was fitted without its fold; 5 is usual."
    ),
]
SyntheticWeight = Annotated[
    float | None,
    typer.Option(help="How much a synthetic example counts beside real ones, 0.5 if not given; 0 leaves them out."),
]
SharedPassages = Annotated[bool, typer.Option(help="Let held-out queries ask for passages that are trained on.")]
DropLeaks = Annotated[
    bool,
    typer.Option("--drop-leaks", help="Leave out the examples that give held-out queries away, and count them."),
]
Loss = Annotated[
    str | None, typer.Option(help="The loss of lora and full, by its name; without it, what suits the examples.")
]
Epochs = Annotated[
    int | None, typer.Option(help="How often the examples are gone through, for lora and full; 1 if not given.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="How many rows are trained on at a time, for lora and full: their passages are each other's "
        "negatives; 32 if not given."
    ),
]
LearningRate = Annotated[float | None, typer.Option(help="The learning rate; without it, what suits method and loss.")]
Negatives = Annotated[
    int | None, typer.Option(help="The most mined negatives of a row, for lora and full; 3 if not given.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="The number of tokens at which training texts are cut, for lora and full; 128 if not given."),
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(help="How many steps lie between two checkpoints, for lora and full; 200 if not given."),
]
Seed = Annotated[int, typer.Option(help="The seed of what is drawn: the same seed gives the same result.")]


@dataclass(frozen=True)
class ExampleFile:
    """A file of examples, and what the options say of how it is read."""

    path: Path
    kind: str | None
    relevant_from: float | None
    split: str | None
    ignore: list[str] | None
    passages: Path | None

    def read(self) -> TrainingData:
        """Its rows; what was left out of them is said on stderr."""
        from llama_index_embed_plus.training.data.reading import read_training_data

        data = read_training_data(
            self.path,
            kind=cast(Any, self.kind),  # an unknown one is refused there
            relevant_from=self.relevant_from,
            split=self.split,
            ignore=self.ignore or (),
            passages=self.passages,
        )
        if data.left_out or data.judged_by:
            by = f" by {data.judged_by}" if data.judged_by else ""
            note(f"{self.path}: {data.kind}{by}, {len(data)} rows to train on, {data.left_out} left out")
        return data

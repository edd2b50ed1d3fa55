"""A cross-encoder of sentence-transformers -> the judge of mining and audits, and the raw scores of distillation.

Guarantees: scores are in the order of the pairs; nothing is printed; a folder's settings run no code and read no other
files, see `library_copy`. Does not know: what is mined.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from llama_index_embed_plus.encoders.library_copy import library_copy, opening
from llama_index_embed_plus.encoders.torch_encoder import check_child
from llama_index_embed_plus.errors import MissingExtraError, ModelError
from llama_index_embed_plus.models.framing import PROBES, panics_translated
from llama_index_embed_plus.models.hub import resolve
from qdrant_tools.client.forks import undivided
from qdrant_tools.errors import InputError, PlusError, first_line
from qdrant_tools.mining.rules import Judge

try:
    import torch
    from sentence_transformers import CrossEncoder
except ImportError as error:
    raise MissingExtraError("judging with a cross-encoder", extra="train") from error

Scores = Callable[[Sequence[tuple[str, str]]], Sequence[float]]
"""(query, passage) pairs -> a score each."""


def cross_encoder_judge(
    model: str | Path | CrossEncoder,
    *,
    threshold: float,
    promote: bool = False,
    device: str | None = None,
    batch_size: int = 32,
    max_tokens: int | None = None,
) -> Judge:
    """Return a judge that scores (query, passage) pairs with a cross-encoder of sentence-transformers.

    `model` is a folder, a hub name, or a model that is already open. Scores are what its `predict` gives: probabilities
    between 0 and 1, unless the model's own configuration says otherwise; look at a few before choosing `threshold`. A
    candidate that scores at least `threshold` is an answer: it is dropped, or with `promote` becomes a positive.
    Texts are cut at `max_tokens`, or at the model's own limit.

    Raises:
        ModelNotFoundError: no such model.
        DamagedModelError: the folder does not hold a model.
        InputError: the model gives several numbers per pair, so that none of them is a score.
    """
    score = _scores(model, device=device, batch_size=batch_size, max_tokens=max_tokens, activation=None)
    # an open model has no name that a resumed mining run could compare
    return Judge(score, threshold, promote, name="" if isinstance(model, CrossEncoder) else str(model))


def cross_encoder_logits(
    model: str | Path | CrossEncoder,
    *,
    device: str | None = None,
    batch_size: int = 32,
    max_tokens: int | None = None,
) -> Scores:
    """Return a function from (query, passage) pairs to the raw scores of a cross-encoder, as margins are made of.

    They are taken before the sigmoid that most of these models end with: it presses all that is certain into 0 and 1,
    so that the margin of a good negative and of a bad one would be the same. Raises as `cross_encoder_judge`.
    """
    return _scores(model, device=device, batch_size=batch_size, max_tokens=max_tokens, activation=torch.nn.Identity())


def _scores(
    model: str | Path | CrossEncoder,
    *,
    device: str | None,
    batch_size: int,
    max_tokens: int | None,
    activation: torch.nn.Module | None,
) -> Scores:
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}, expected at least 1")
    encoder = model if isinstance(model, CrossEncoder) else _open(resolve(model), device, max_tokens)
    if encoder.num_labels != 1:
        raise InputError(f"{model} gives {encoder.num_labels} numbers per pair, expected a reranker that gives one")

    def score(pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        check_child(encoder.device)
        try:
            with panics_translated(model), undivided():
                scores = encoder.predict(
                    list(pairs), batch_size=batch_size, show_progress_bar=False, activation_fn=activation
                )
        except PlusError:
            raise
        except Exception as error:  # layers that do not fit each other end in errors of every kind
            raise ModelError(f"the cross-encoder {model} cannot be run ({first_line(error)})") from error
        given: list[float] = scores.tolist()
        return given

    return score


def _open(folder: Path, device: str | None, max_tokens: int | None) -> CrossEncoder:
    with tempfile.TemporaryDirectory(prefix="embed-plus-") as copy, opening(folder) as arguments:
        library_copy(folder, Path(copy))
        encoder = CrossEncoder(copy, device=device, max_length=max_tokens, **arguments)
        # what does not fit together fails here, and prints nothing
        encoder.predict([(text, text) for text in PROBES], show_progress_bar=False)
        return encoder

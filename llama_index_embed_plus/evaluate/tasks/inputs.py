"""Texts, scores and labels as a caller has them -> checked vectors and arrays, for every task of this package.

Guarantees: what cannot be measured is refused with the place of the first bad value: an empty text, a score that is
no number, a label that is missing, a vector with NaN in it. Does not know: tasks, files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from llama_index_embed_plus.errors import MissingExtraError, TextError
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.records import Encoder, Vectors, encode_compared
from qdrant_tools.validation import brief, checked_number, checked_vectors, unit_rows

Role = Literal["model", "query", "passage"]
"""The prompt of texts that are compared with each other, such as two sentences. `model`: the one that its files or its
card name for the task (`describe` says which). Most have a prompt for queries only and are measured without it."""

Label = str | int
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def needs_eval(what: str) -> None:
    """Refuse to go on without scikit-learn and scipy.

    Raises:
        MissingExtraError: one of them is not installed.
    """
    # looked up and not imported: only what a task uses is loaded
    if find_spec("sklearn") is None or find_spec("scipy") is None:
        raise MissingExtraError(what, extra="eval")


def embed(
    encoder: Encoder, texts: Sequence[str], *, role: Role = "model", task: str = "similarity", what: str = "texts"
) -> Vectors:
    """Embed texts into (n, dimension), checked. task: what texts are compared for, where the role is the model's.

    Raises:
        TextError: no texts, or one that is no string or empty.
        VectorError: the encoder returned NaN, a row of zeros, or something of another shape.
    """
    if role not in get_args(Role):
        raise UsageError(f"role is {role!r}, expected one of {', '.join(get_args(Role))}")
    # a string is a sequence too, of its letters
    if isinstance(texts, str) or not len(texts):
        raise TextError(f"{what}: {brief(texts)}, expected a list of at least one text")
    for index, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise TextError(f"{what}: text {index} is {brief(text)}, expected a non-empty string")
    roles: Mapping[Role, Callable[[Sequence[str]], Vectors]] = {
        "query": encoder.encode_queries,
        "passage": encoder.encode_passages,
        "model": partial(encode_compared, encoder, task=task),
    }
    return checked_vectors(
        roles[role](list(texts)),
        dimension=encoder.dimension,
        count=len(texts),
        what=f"{what} encoded by {encoder.space!r}",
    )


def paired_cosine(left: Vectors, right: Vectors) -> Floats:
    """Cosine of every row of `left` with the same row of `right`; of equal rows exactly 1, so that these tie."""
    apart = unit_rows(left, np.float64) - unit_rows(right, np.float64)
    # the product of a row with itself is 1 but for rounding, which would bring equal pairs into an order of its own
    return np.asarray(1 - (apart * apart).sum(axis=1) / 2)


def checked_scores(scores: Sequence[float], *, count: int, what: str = "scores") -> Floats:
    """Numbers as float64 (count,).

    Raises:
        InputError: another count, or a value that is no finite number; text that looks like a number is none.
    """
    same_length(what, len(scores), count)
    for index, score in enumerate(scores):
        checked_number(f"{what}: value {index}", score)
    return np.asarray(scores, np.float64)


def checked_labels(labels: Sequence[Label], *, count: int, what: str = "labels") -> list[Label]:
    """Labels that are all strings or all whole numbers.

    Raises:
        InputError: another count, a label that is missing (None or empty), or of another type than the first.
    """
    same_length(what, len(labels), count)
    values: Sequence[Any] = labels
    plain = [int(label) if isinstance(label, np.integer) else label for label in values]
    for index, label in enumerate(plain):
        if not isinstance(label, (str, int)) or isinstance(label, bool) or label == "":
            raise InputError(f"{what}: label {index} is {brief(label)}, expected a string or a whole number")
        # labels are sorted later, which fails for 1 and "1"
        if type(label) is not type(plain[0]):
            raise InputError(
                f"{what}: label {index} is {brief(label)}, label 0 is {brief(plain[0])}: expected one type"
            )
    return plain


def checked_binary(labels: Sequence[int], *, count: int, what: str = "labels") -> Integers:
    """Labels 0 and 1 as an array, both of them there.

    Raises:
        InputError: another count, another label, or only one of the two.
    """
    checked = checked_labels(labels, count=count, what=what)
    other = next((index for index, label in enumerate(checked) if label not in (0, 1)), None)
    if other is not None:
        raise InputError(f"{what}: label {other} is {brief(checked[other])}, expected 0 or 1")
    array = np.asarray(checked, np.int64)
    if array.min() == array.max():
        raise InputError(f"{what}: all {count} are {array[0]}, expected some of each kind")
    return array


def same_length(what: str, count: int, expected: int) -> None:
    """Refuse columns that do not belong together."""
    if count != expected:
        raise InputError(f"{what}: {count} values for {expected} rows")

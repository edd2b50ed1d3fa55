"""An encoder, or a Qdrant collection with one -> a model of mteb 2.

`mteb.evaluate(mteb_encoder(encoder), tasks)` runs any of mteb's text tasks by brute force.
`mteb.evaluate(mteb_search(collection, encoder), tasks)` runs its retrieval and reranking tasks on Qdrant: mteb's corpus
is indexed into the collection, and the collection's own HNSW answers the queries.

Guarantees: queries and passages get their own prompts; a text that cannot be embedded is refused or counted, never
embedded as something else; mteb never takes its cached results of one build for those of another. Does not know: tasks,
scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np
from qdrant_client import models

from llama_index_embed_plus.errors import MissingExtraError, TextError
from llama_index_embed_plus.evaluate.tasks.inputs import Role, embed
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.points import point_id, stored_vectors
from qdrant_tools.collections.status import build_index
from qdrant_tools.errors import NotSupportedError, UsageError, brief
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Encoder, Hit, Passage, Vectors
from qdrant_tools.search.dense import encoded, search_batch, search_vectors

Empty = Literal["refuse", "zero"]
_TASKS = {
    "PairClassification": "pair_classification",
    "Classification": "classification",
    "MultilabelClassification": "classification",
    "Clustering": "clustering",
    "BitextMining": "bitext_mining",
    "Summarization": "summarisation",
}
"""mteb's types of tasks -> ours; others are similarity."""
_PROBE = "what the same text gives tells builds apart"
"""Part of the revision of a model in mteb's cache: another text would make cached results stale."""


def mteb_encoder(encoder: Encoder, *, role: Role = "model", empty: Empty = "refuse") -> MtebEncoder:
    """Make an encoder a model of mteb (its `EncoderProtocol`).

    Args:
        role: The prompt of texts that are neither query nor passage to mteb, as in similarity and classification:
            the one that the model has for such a task, or always the queries' or the passages'.
        empty: What to do with a text without content, of which some of mteb's sets have a few. `refuse` raises
            TextError. `zero` gives it a vector of zeros, similar to nothing, and counts it in `empty_texts`.

    Raises:
        MissingExtraError: mteb is not installed.
    """
    _needs_mteb()
    if empty not in get_args(Empty):
        raise UsageError(f"empty is {empty!r}, expected one of {', '.join(get_args(Empty))}")
    if role not in get_args(Role):
        raise UsageError(f"role is {role!r}, expected one of {', '.join(get_args(Role))}")
    return MtebEncoder(encoder, role, empty)


def mteb_search(
    collection: Collection, encoder: Encoder, *, hnsw_ef: int | None = None, exact: bool = False
) -> MtebSearch:
    """Make a collection a model of mteb (its `SearchProtocol`), so that Qdrant's own search is what is measured.

    For each task the collection is filled with its corpus and the HNSW graph is built. Passages of an earlier task are
    removed. Start with an empty collection: one that holds anything but passages of the corpus is refused.

    Args:
        hnsw_ef, exact: As in `search`. On `:memory:` every search is exact.

    Raises:
        MissingExtraError: mteb is not installed.
        SpaceMismatchError: the collection was filled by another encoder.
    """
    _needs_mteb()
    collection.check(encoder)
    return MtebSearch(collection, encoder, hnsw_ef=hnsw_ef, exact=exact)


class MtebEncoder:
    """See `mteb_encoder`."""

    def __init__(self, encoder: Encoder, role: Role, empty: Empty) -> None:
        self.encoder, self.role, self.empty = encoder, role, empty
        self.empty_texts = 0
        """How many texts without content got a vector of zeros."""
        # as it was before there were prompts by task, where a model has none
        same = role == "passage" or (role == "model" and not getattr(getattr(encoder, "spec", None), "compared", None))
        experiment = {} if same else {"role": role}
        self.mteb_model_meta = _meta(encoder, experiment)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **unknown: Any,
    ) -> Vectors:
        """Embed mteb's batches into (n, dimension), in their order.

        `batch_size` and `show_progress_bar` change nothing: batches are planned by tokens.

        Raises:
            NotSupportedError: a batch without texts, or an option that would change the vectors, such as `precision`.
            TextError: a text without content, unless these are to be zeros; VectorError: the encoder returned NaN.
        """
        if unknown:
            raise NotSupportedError(f"{', '.join(unknown)}: an encoder of this package has no such option of mteb's")
        texts = list(_texts(inputs, str(getattr(task_metadata, "name", "the task"))))
        role: Role = {"query": "query", "document": "passage"}.get(str(prompt_type), self.role)  # type: ignore[assignment]
        task = _TASKS.get(str(getattr(task_metadata, "type", "")), "similarity")
        what = f"{getattr(task_metadata, 'name', 'texts')} ({hf_subset}, {hf_split}), {prompt_type or 'texts'}"
        if self.empty == "refuse":
            return embed(self.encoder, texts, role=role, task=task, what=what)
        filled = [row for row, text in enumerate(texts) if text.strip()]
        self.empty_texts += len(texts) - len(filled)
        vectors = np.zeros((len(texts), self.encoder.dimension), np.float32)
        if filled:
            vectors[filled] = embed(self.encoder, [texts[row] for row in filled], role=role, task=task, what=what)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of all with all, as a torch tensor."""
        from mteb.similarity_functions import cos_sim

        return cos_sim(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the cosines of rows side by side, as a torch tensor."""
        from mteb.similarity_functions import pairwise_cos_sim

        return pairwise_cos_sim(embeddings1, embeddings2)


class MtebSearch:
    """See `mteb_search`."""

    def __init__(self, collection: Collection, encoder: Encoder, *, hnsw_ef: int | None, exact: bool) -> None:
        self.collection, self.encoder = collection, encoder
        self.hnsw_ef, self.exact = hnsw_ef, exact
        self.skipped = 0
        """Number of passages of the last task that could not be stored, such as those without text."""
        self._filled = False  # whether this object put everything into the collection
        experiment = {"qdrant": collection.name, "exact": exact, "hnsw_ef": hnsw_ef or collection.hnsw_ef or "default"}
        self.mteb_model_meta = _meta(encoder, experiment)

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any] | None = None,
        num_proc: int | None = None,
        **unknown: Any,
    ) -> None:
        """Fill the collection with the rows of `corpus` (`id`, `text`, perhaps `title`) and build the graph.

        Raises:
            UsageError: the collection holds passages that are not of this corpus and were there before.
        """
        if not self._filled:
            self._refuse_foreign(set(map(str, corpus["id"])))
            self._filled = True
        report = index_passages(
            self.collection, map(_passage, corpus), self.encoder, on_bad="count", delete_missing=True
        )
        self.skipped = report.failed
        build_index(self.collection)

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any] | None = None,
        top_ranked: Mapping[str, list[str]] | None = None,
        num_proc: int | None = None,
        **unknown: Any,
    ) -> dict[str, dict[str, float]]:
        """Answer the rows of `queries` (`id`, `text`, perhaps `instruction`): passage ids with scores, by query id.

        Reranking tasks give `top_ranked`. Then only these passages are scored, all of them.

        Raises:
            TextError: a query without text.
        """
        texts = {str(row["id"]): _query(row) for row in queries}
        if top_ranked is not None:
            return self._reranked(texts, top_ranked, top_k)
        results = search_batch(
            self.collection,
            list(texts.values()),
            self.encoder,
            k=top_k,
            hnsw_ef=self.hnsw_ef,
            exact=self.exact,
            fields=(),
            text=False,
        )
        return {query: _scores(hits) for query, hits in zip(texts, results, strict=True)}

    def _reranked(
        self, texts: Mapping[str, str], top_ranked: Mapping[str, list[str]], top_k: int
    ) -> dict[str, dict[str, float]]:
        vectors = encoded(self.collection, list(texts.values()), self.encoder)
        results: dict[str, dict[str, float]] = {}
        for query, vector in zip(texts, vectors, strict=True):
            candidates = [point_id(passage) for passage in top_ranked.get(query, ())]
            only = models.Filter(must=[models.HasIdCondition(has_id=list(candidates))])
            k = min(top_k, max(1, len(candidates)))  # Qdrant refuses a limit of 0
            # exact, because the graph may miss a candidate and every one must get a score
            hits = search_vectors(self.collection, vector[None], k=k, exact=True, filter=only, fields=(), text=False)
            results[query] = _scores(hits[0])
        return results

    def _refuse_foreign(self, corpus: set[str]) -> None:
        for ids, _ in stored_vectors(self.collection):
            foreign = next((passage for passage in ids if passage not in corpus), None)
            if foreign is not None:
                raise UsageError(
                    f"collection {self.collection.name!r} holds {brief(foreign)}, which is not of the task's corpus "
                    "and would be deleted: give mteb_search an empty collection of its own"
                )


def _needs_mteb() -> None:
    if find_spec("mteb") is None:
        raise MissingExtraError("evaluation by mteb", extra="eval")


def _meta(encoder: Encoder, experiment: Mapping[str, Any]) -> Any:
    """Return mteb's description of a model. It keys mteb's cache of results, so all that changes them must be in it."""
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    name, _, identity = encoder.space.partition("@")
    # Builds and adapters share a space. The vectors of one text tell them apart.
    probe = np.concatenate([encoder.encode_queries([_PROBE]), encoder.encode_passages([_PROBE])])
    build = hashlib.sha256(np.asarray(probe, np.float32).tobytes()).hexdigest()[:12]
    return ModelMeta.create_empty(
        {
            # mteb demands organization/name: a / inside the name would make three parts of it
            "name": f"llama-index-embed-plus/{name.replace('/', '_')}",
            "revision": f"{identity or name}-{build}",
            "embed_dim": encoder.dimension,
            "similarity_fn_name": ScoringFunction.COSINE,
            "experiment_kwargs": dict(experiment) or None,
        }
    )


def _texts(inputs: Iterable[Mapping[str, Any]], task: str) -> Iterator[str]:
    for batch in inputs:
        if "text" not in batch:
            raise NotSupportedError(f"{task} gives {', '.join(batch)}: this encoder reads text only")
        for text in batch["text"]:
            if not isinstance(text, str):
                raise TextError(f"{task} gives {brief(text)} as a text, expected a string")
            yield text


def _passage(row: Mapping[str, Any]) -> Passage:
    """Join title and text as mteb does."""
    title, text = row.get("title") or "", row.get("text") or ""
    return Passage(str(row["id"]), f"{title} {text}".strip())


def _query(row: Mapping[str, Any]) -> str:
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise TextError(f"query {brief(row['id'])} is {brief(text)}, expected a non-empty string")
    return " ".join(part for part in (text, row.get("instruction")) if part)


def _scores(hits: Iterable[Hit]) -> dict[str, float]:
    return {hit.id: float(hit.score) for hit in hits}

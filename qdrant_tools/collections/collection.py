"""One open collection: its client, what its metadata says, and the encoder it was opened with.

The methods are the short way to the functions of this package. Each passes the collection and its encoder on to the
function of the same name, which says the rest: `index_passages`, `search_batch`, `search_hybrid`, `mine`, `tune`, ...

Guarantees: an encoder whose vectors cannot be compared with the stored ones is refused. Does not know: how collections
are made or opened; see `manager`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Unpack

from numpy.typing import ArrayLike
from qdrant_client import QdrantClient, models

from qdrant_tools.client.connect import engine_of
from qdrant_tools.client.gateway import Gateway
from qdrant_tools.collections.metadata import UNKNOWN_SPACE, CollectionMetadata, Layout
from qdrant_tools.collections.quantization import Quantization
from qdrant_tools.errors import CollectionError, InputError, SpaceMismatchError, UsageError, VectorError
from qdrant_tools.records import Encoder, Hit, Label, Progress
from qdrant_tools.search.bm25 import Bm25
from qdrant_tools.validation import brief

if TYPE_CHECKING:  # these modules import this one
    from qdrant_tools.collections.points import StoredPassage
    from qdrant_tools.collections.status import CollectionDescription
    from qdrant_tools.fields import Field
    from qdrant_tools.indexing import IndexReport, OnBad
    from qdrant_tools.mining.miner import MiningResult
    from qdrant_tools.mining.rules import Judge, MiningSettings
    from qdrant_tools.search.around import Stretch
    from qdrant_tools.search.choosing import SearchReport
    from qdrant_tools.search.dense import HitGroup
    from qdrant_tools.search.fusion import Fusion
    from qdrant_tools.search.options import PlainFilter, SearchKwargs
    from qdrant_tools.search.word_tuning import WordTuning
    from qdrant_tools.sources.given import Cutter, Given
    from qdrant_tools.sources.in_step import SourceReport
    from qdrant_tools.sources.origin import SourceDocument
    from qdrant_tools.tuning import TuningGrid, TuningReport
    from qdrant_tools.vectors.classes import Classification
    from qdrant_tools.vectors.clusters import Clustering
    from qdrant_tools.vectors.liked import Strategy
    from qdrant_tools.vectors.near import DuplicateReport


@dataclass(frozen=True)
class Collection:
    """A handle on one collection, under its own name (never an alias). Made by `CollectionManager`."""

    client: QdrantClient = field(repr=False, compare=False)
    name: str
    metadata: CollectionMetadata
    encoder: Encoder | None = field(default=None, repr=False, compare=False)
    """The encoder of its queries and passages; None if it was opened without one."""

    @property
    def space(self) -> str:
        """The vector space of its encoder; "" until that is known."""
        return self.metadata.space

    @property
    def dimension(self) -> int:
        return self.metadata.dimension

    @property
    def hnsw_ef(self) -> int | None:
        """The beam width of a search that gives none."""
        return self.metadata.hnsw_ef

    @property
    def layout(self) -> Layout:
        """Where a point has its vector, passage id, text and metadata."""
        return self.metadata.layout

    @property
    def lexical(self) -> Bm25 | None:
        """How the sparse vectors for lexical search are made, if the collection has any."""
        return self.metadata.lexical

    @property
    def fusion(self) -> Fusion | None:
        """How a hybrid search that says nothing fuses words and vectors, if the collection keeps that."""
        return self.metadata.fusion

    @property
    def quantization(self) -> Quantization | None:
        """How a search uses the compressed vectors, if the collection has any."""
        return self.metadata.quantization

    @property
    def adapter(self) -> str | None:
        """The build of the query adapter that serves here, if one was promoted."""
        return self.metadata.adapter

    @property
    def gateway(self) -> Gateway:
        """The calls to this collection, with errors of ours; they know points and no passages."""
        return Gateway(self.client, self.name)

    @property
    def vector_selector(self) -> bool | list[str]:
        """How to ask the client for the dense vector of a point, and for no other."""
        # a lone unnamed vector comes as a plain list, and needs no name to be asked for
        return [self.layout.vector] if self.layout.vector or self.lexical else True

    @property
    def searches_exactly(self) -> bool:
        """Whether a search that says nothing compares with every vector; see `choosing`."""
        return self.metadata.search is not None and self.metadata.search.exact

    def search_params(self, *, hnsw_ef: int | None = None, exact: bool | None = None) -> models.SearchParams | None:
        """What to ask the engine for; nothing on `:memory:`, which compares with every vector anyway.

        `exact` None: as the collection searches, and by the graph if `hnsw_ef` is given.
        """
        if engine_of(self.client) == "memory":
            return None
        if exact is None:
            exact = hnsw_ef is None and self.searches_exactly
        quantization = None if self.quantization is None or exact else self.quantization.search
        return models.SearchParams(hnsw_ef=hnsw_ef or self.hnsw_ef, exact=exact, quantization=quantization)

    def check(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors cannot be compared with the stored ones.

        Raises:
            InputError: it is not an encoder.
            CollectionError: the collection was made for a dimension, and no encoder has come yet.
            SpaceMismatchError: the encoder has another space.
            VectorError: same space by name, but another dimension.
        """
        check_encoder(encoder)
        if self.space == UNKNOWN_SPACE and encoder.dimension == self.dimension:
            raise CollectionError(
                f"collection {self.name!r} was made for {self.dimension} dimensions and has no encoder yet"
            ).with_way_out(
                python="give it one with ensure(), or with adopt() if it holds points already",
                command=f"collection adopt {shlex.quote(self.name)}",
            )
        # an unknown space cannot disagree: such a collection has another dimension, which is said below
        if encoder.space != self.space != UNKNOWN_SPACE:
            raise SpaceMismatchError(
                f"collection {self.name!r} holds vectors of {self.space!r}, this encoder makes {encoder.space!r}: "
                "use the encoder that filled it, or index into a new collection and switch an alias to it"
            )
        if encoder.dimension != self.dimension:
            raise VectorError(
                f"collection {self.name!r} holds {self.dimension}-dimensional vectors, "
                f"this encoder makes {encoder.dimension}-dimensional ones"
            )

    def with_encoder(self, encoder: Encoder) -> Collection:
        """The same collection with exactly this encoder of its space, whatever was promoted here: to compare encoders.

        Raises:
            InputError, SpaceMismatchError, VectorError, CollectionError: as `check` does.
        """
        self.check(encoder)
        return replace(self, encoder=encoder)

    def index(
        self,
        documents: Iterable[Given],
        *,
        cutter: Cutter | None = None,
        batch_size: int = 256,
        progress: Progress | None = None,
        on_bad: OnBad = "raise",
        delete_missing: bool = False,
        skip_duplicates: float | None = None,
    ) -> IndexReport:
        """Store passages, encoding only those that are new or changed; see `indexing.index_passages`.

        A passage is a `Passage`, a dict `{"id", "text", "metadata"}` (the metadata may be left out) or a string. A
        string has a stable id made of its text: indexed again it is the same passage, and another text is another one.
        Documents and nodes of LlamaIndex and LangChain are cut where they are longer than the encoder reads. `cutter`
        cuts everything that comes; `passage_cutter` of the other package makes one.
        """
        # imported here, as in the methods below: these modules import this one
        from qdrant_tools.indexing import index_passages

        return index_passages(
            self,
            documents,
            self.required_encoder(),
            cutter=cutter,
            batch_size=batch_size,
            progress=progress,
            on_bad=on_bad,
            delete_missing=delete_missing,
            skip_duplicates=skip_duplicates,
        )

    def sync(
        self,
        documents: Iterable[SourceDocument | Given],
        *,
        source: str,
        delete_missing: bool = False,
        batch_size: int = 256,
        progress: Progress | None = None,
        on_bad: OnBad = "raise",
        dry_run: bool = False,
        skip_duplicates: float | None = None,
    ) -> SourceReport:
        """Store the documents of a source and remove what they have no more; see `sources.sync`.

        With `delete_missing` also what the collection has of documents of this source that did not come.
        """
        from qdrant_tools.sources.in_step import sync

        return sync(
            self,
            documents,
            self.required_encoder(),
            source=source,
            delete_missing=delete_missing,
            batch_size=batch_size,
            progress=progress,
            on_bad=on_bad,
            dry_run=dry_run,
            skip_duplicates=skip_duplicates,
        )

    def search(self, query: str, **options: Unpack[SearchKwargs]) -> list[Hit]:
        """Find the `k` (10) passages nearest to a query. Options: the fields of `search.SearchOptions`."""
        from qdrant_tools.search.dense import search

        return search(self, query, self.required_encoder(), **options)

    def search_batch(self, queries: Sequence[str], **options: Unpack[SearchKwargs]) -> list[list[Hit]]:
        """Find the `k` nearest passages of each query, in the order of the queries. Options as in `search`."""
        from qdrant_tools.search.dense import search_batch

        return search_batch(self, queries, self.required_encoder(), **options)

    def search_vectors(self, vectors: ArrayLike, **options: Unpack[SearchKwargs]) -> list[list[Hit]]:
        """As `search_batch`, for query vectors (n, dimension) of the collection's space. Needs no encoder."""
        from qdrant_tools.search.dense import search_vectors

        return search_vectors(self, vectors, **options)

    def search_groups(
        self, query: str, *, by: Field, group_size: int = 3, **options: Unpack[SearchKwargs]
    ) -> list[HitGroup]:
        """Find the `k` nearest groups of passages that share the metadata field `by`; see `search.search_groups`."""
        from qdrant_tools.search.dense import search_groups

        return search_groups(self, query, self.required_encoder(), by=by, group_size=group_size, **options)

    def search_lexical(
        self, queries: Sequence[str], *, k: int = 10, filter: PlainFilter | models.Filter | None = None
    ) -> list[list[Hit]]:
        """Find the `k` passages of each query by their words (BM25); see `search.search_lexical`. Needs no encoder."""
        from qdrant_tools.search.hybrid import search_lexical

        return search_lexical(self, queries, k=k, filter=filter)

    def search_hybrid(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        fusion: Fusion | None = None,
        filter: PlainFilter | models.Filter | None = None,
    ) -> list[list[Hit]]:
        """Find the `k` passages of each query by words and meaning together; see `search.search_hybrid`."""
        from qdrant_tools.search.hybrid import search_hybrid

        return search_hybrid(self, queries, self.required_encoder(), k=k, fusion=fusion, filter=filter)

    def around(self, hits: Hit | Sequence[Hit], n: int = 1) -> list[Stretch]:
        """Read the `n` passages before and after each hit in its document; see `search.around`. Needs no encoder."""
        from qdrant_tools.search.around import around

        return around(self, hits, n)

    def similar(
        self,
        liked: Sequence[str],
        disliked: Sequence[str] = (),
        *,
        k: int = 10,
        strategy: Strategy = "average_vector",
        filter: PlainFilter | models.Filter | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find the `k` passages most like those of the ids, and unlike the others; see `vectors.similar`. Needs no
        encoder."""
        from qdrant_tools.vectors.liked import similar

        return similar(self, liked, disliked, k=k, strategy=strategy, filter=filter, exact=exact)

    def duplicates(
        self,
        *,
        above: float = 0.95,
        filter: PlainFilter | models.Filter | None = None,
        exact: bool | None = None,
        progress: Progress | None = None,
    ) -> DuplicateReport:
        """Find groups of passages that say nearly the same; see `vectors.duplicates`. Needs no encoder."""
        from qdrant_tools.vectors.near import duplicates

        return duplicates(self, above=above, filter=filter, exact=exact, progress=progress)

    def cluster(self, count: int | None = None, *, seed: int = 0, progress: Progress | None = None) -> Clustering:
        """Part the passages into groups about the same, named by their words; see `vectors.cluster`. Needs no
        encoder."""
        from qdrant_tools.vectors.clusters import cluster

        return cluster(self, count, seed=seed, progress=progress)

    def classify(self, labels: Mapping[str, str], *, seed: int = 0) -> Classification:
        """Learn the label of every passage from a few labelled ones; see `vectors.classify`. Needs no encoder."""
        from qdrant_tools.vectors.classes import classify

        return classify(self, labels, seed=seed)

    def fetch(self, passage_ids: Sequence[str], *, with_vectors: bool = False) -> dict[str, StoredPassage]:
        """Read passages by id; ids that are not there are not in the result."""
        from qdrant_tools.collections.points import fetch

        return fetch(self, passage_ids, with_vectors=with_vectors)

    def build_index(self, *, timeout: float = 3600.0, progress: Progress | None = None, choose: bool = True) -> bool:
        """Have the HNSW graph built now; whether there was something to build. See `collections.build_index`.

        With `choose`, how it is searched from then on is chosen too, unless that was done or said: see `choose_search`.
        """
        from qdrant_tools.collections.status import build_index

        built = build_index(self, timeout=timeout, progress=progress)
        if choose:
            self.choose_search()
        return built

    def choose_search(self, *, exact: bool | None = None, hnsw_ef: int | None = None) -> SearchReport | None:
        """Measure what a search finds, and keep with the collection how it is searched; see `choosing.choose_search`.

        This handle searches so at once; others when they are opened again.
        """
        from qdrant_tools.search.choosing import choose_search

        return choose_search(self, exact=exact, hnsw_ef=hnsw_ef)

    def add_lexical(
        self,
        bm25: Bm25 | None = None,
        *,
        stemming: str | None = None,
        stop_words: str | None = None,
        k1: float | None = None,
        b: float | None = None,
        again: bool = False,
        progress: Progress | None = None,
    ) -> Collection:
        """Let it be searched by words too, embedding nothing again; see `added_words.add_lexical`."""
        from qdrant_tools.search.added_words import add_lexical

        return add_lexical(
            self, bm25, stemming=stemming, stop_words=stop_words, k1=k1, b=b, again=again, progress=progress
        )

    def keep_fusion(self, fusion: Fusion | None) -> Collection:
        """Keep how a hybrid search that says nothing fuses; None: forget it. See `kept_words.keep_fusion`."""
        from qdrant_tools.search.kept_words import keep_fusion

        return keep_fusion(self, fusion)

    def apply_word_tuning(self, report: WordTuning, *, progress: Progress | None = None) -> Collection:
        """Keep the words and the fusion that `tune_words` chose; see `kept_words.apply_word_tuning`."""
        from qdrant_tools.search.kept_words import apply_word_tuning

        return apply_word_tuning(self, report, progress=progress)

    def take_search(self, metadata: CollectionMetadata) -> None:
        """Search as this metadata of the collection says."""
        # who has just built the index would not look for a new handle to search with
        taken = replace(self.metadata, hnsw_ef=metadata.hnsw_ef, search=metadata.search)
        object.__setattr__(self, "metadata", taken)

    def describe(self) -> CollectionDescription:
        """What the engine and the metadata say about the collection: points, settings, aliases, sizes."""
        from qdrant_tools.collections.manager import CollectionManager

        return CollectionManager(self.client).describe(self.name)

    def mine(
        self,
        labels: Iterable[Label],
        *,
        settings: MiningSettings | None = None,
        judge: Judge | None = None,
        progress: Progress | None = None,
    ) -> MiningResult:
        """Mine hard negatives for every query that has a positive label; see `mining.mine`."""
        from qdrant_tools.mining.miner import mine

        return mine(self, labels, self.required_encoder(), settings=settings, judge=judge, progress=progress)

    def tune(
        self,
        queries: ArrayLike | None = None,
        *,
        k: int = 10,
        target_recall: float = 0.95,
        grid: TuningGrid | None = None,
        held_out: int = 200,
        progress: Progress | None = None,
    ) -> TuningReport:
        """Measure recall and latency of search settings; see `tuning.tune`.

        `queries` are texts, or vectors (n, dimension) of the collection's space, or None: `held_out` stored vectors.
        """
        from qdrant_tools.search.dense import checked_queries, encoded
        from qdrant_tools.tuning import tune

        # any, not all: in a list of texts and others, the others are refused as queries
        if isinstance(queries, list | tuple) and any(isinstance(query, str) for query in queries):
            queries = encoded(self, checked_queries(queries), self.required_encoder())
        return tune(self, queries, k=k, target_recall=target_recall, grid=grid, held_out=held_out, progress=progress)

    def apply_tuning(self, report: TuningReport) -> Collection:
        """Store the settings that `tune` chose with the collection, for every search; see `tuning.apply`."""
        from qdrant_tools.tuning import apply

        return apply(self, report)

    def required_encoder(self) -> Encoder:
        """The encoder it was opened with. Raises `UsageError` if it was opened without one."""
        if self.encoder is None:
            raise UsageError(
                f"collection {self.name!r} was opened without an encoder: open it with one, "
                f"CollectionManager(client).open({self.name!r}, encoder), or take collection.with_encoder(encoder)"
            )
        return self.encoder


def check_encoder(value: object, expected: str = "an encoder") -> None:
    """Raise `InputError` for something that is no encoder."""
    if not isinstance(getattr(value, "space", None), str) or not isinstance(getattr(value, "dimension", None), int):
        raise InputError(f"encoder is {brief(value)}, expected {expected}: an encoder has a space and a dimension")
    # an embedding of a framework has both, and is no encoder
    if not (hasattr(value, "encode_queries") and hasattr(value, "encode_passages")):
        kind = type(value).__name__
        hint = f"give the `encoder` of this {kind}" if hasattr(value, "encoder") else "it has no encode_passages"
        raise InputError(f"encoder is a {kind}, expected {expected}: {hint}")

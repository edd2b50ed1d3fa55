"""A recorder writes down every retrieval of a LlamaIndex application, and never gets in its way."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from llama_index_instrumentation import get_dispatcher
from models import save_model

from llama_index_embed_plus import PlusEmbedding, open_encoder
from llama_index_embed_plus.integrations.recorder import RetrievalRecorder, hit_id
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.log import RetrievalLog
from qdrant_tools.records import Passage

TEXTS = {"cat": "the cat sleeps under the tree", "dog": "a dog runs fast", "stone": "red stone in the river"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_model(folder)
    return folder


@pytest.fixture(scope="module")
def embedding(model):
    return PlusEmbedding(model, device="cpu")


@pytest.fixture(scope="module")
def index(embedding, tmp_path_factory):
    """An index over LlamaIndex's own Qdrant store, on the embedded engine."""
    with closing(connect(tmp_path_factory.mktemp("library") / "qdrant")) as client:
        storage = StorageContext.from_defaults(vector_store=QdrantVectorStore("library", client=client))
        nodes = [TextNode(text=text, metadata={"name": name}) for name, text in TEXTS.items()]
        yield VectorStoreIndex(nodes, storage_context=storage, embed_model=embedding)


@pytest.fixture
def recorder(tmp_path):
    with RetrievalRecorder(tmp_path / "log.sqlite") as recorder:
        yield recorder


class Fixed(BaseRetriever):
    """Finds the same nodes for every query, or nothing but trouble."""

    def __init__(self, *found: NodeWithScore, inner: BaseRetriever | None = None, trouble: bool = False) -> None:
        super().__init__()
        self.found, self.inner, self.trouble = list(found), inner, trouble

    def _retrieve(self, query_bundle):
        if self.trouble:
            raise RuntimeError("no answer")
        return self.found + (self.inner.retrieve(query_bundle) if self.inner else [])


def node(name: str, score: float | None = 0.5, **metadata: object) -> NodeWithScore:
    return NodeWithScore(node=TextNode(id_=name, text=name, metadata=metadata), score=score)


def searches(recorder):
    recorder.flush()
    return list(recorder.log.searches())


def test_a_search_may_be_of_a_session_and_no_request_fails_for_it(tmp_path):
    names = iter(["visit 1", None, "visit 2"])
    with RetrievalRecorder(tmp_path / "log.sqlite", session=lambda: next(names)) as recorder:
        for _ in range(4):  # the fourth time the function fails
            Fixed(node("a")).retrieve("q")
        assert [search.session for search in searches(recorder)] == ["visit 1", "", "visit 2", ""]


def test_a_retrieval_is_written_with_all_that_it_showed(index, embedding, recorder):
    found = index.as_retriever(similarity_top_k=2).retrieve("what is a cat ?")
    (search,) = searches(recorder)
    assert (search.query, search.collection, search.space) == ("what is a cat ?", "library", embedding.space)
    assert [(hit.id, hit.rank) for hit in search.hits] == [(found[0].node_id, 1), (found[1].node_id, 2)]
    assert [hit.score for hit in search.hits] == [hit.score for hit in found]


async def test_asynchronous_retrievals_are_written_too(recorder):
    retriever = Fixed(node("a"))
    await asyncio.gather(*(retriever.aretrieve(f"question {i}") for i in range(20)))
    assert sorted(search.query for search in searches(recorder)) == sorted(f"question {i}" for i in range(20))


def test_a_query_engine_is_one_search_and_its_sources_take_feedback(index, recorder):
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=2).query("what is a dog ?")
    source = answer.source_nodes[1]
    recorder.feedback(recorder.search_id(source), hit_id(source.node), "click")
    recorder.feedback(recorder.search_id(source), hit_id(source.node), "rating", 2)
    (search,) = searches(recorder)
    assert search.id == recorder.search_id(source)
    assert [(event.id, event.kind, event.value) for event in search.feedback] == [
        (source.node_id, "click", 1.0),
        (source.node_id, "rating", 2.0),
    ]


def test_the_answer_of_a_query_engine_and_its_thumb_are_recorded_and_are_no_feedback_on_a_hit(index, recorder):
    answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=2).query("what is a dog ?")
    nodes = [source.node for source in answer.source_nodes]
    search_id = recorder.search_id(answer.source_nodes[0])
    recorder.answered([search_id], str(answer), context=[hit_id(each) for each in nodes])
    recorder.answer_feedback(search_id, "thumb", 0.0, who="u1")
    (search,) = searches(recorder)
    assert not search.feedback and search.answer.text == str(answer)
    assert search.answer.context == tuple(each.node_id for each in nodes)
    assert [(said.kind, said.value, said.who) for said in search.answer.verdicts] == [("thumb", 0.0, "u1")]


def test_what_a_retriever_asks_another_one_is_not_a_search_of_the_user(recorder):
    Fixed(node("a"), inner=Fixed(node("b"), inner=Fixed(node("c")))).retrieve("question")
    (search,) = searches(recorder)
    assert [hit.id for hit in search.hits] == ["a", "b", "c"]


def test_a_retrieval_that_fails_is_no_search_and_the_next_one_is(recorder):
    with pytest.raises(RuntimeError, match="no answer"):
        Fixed(inner=Fixed(trouble=True)).retrieve("question")
    Fixed(node("a")).retrieve("again")
    assert [search.query for search in searches(recorder)] == ["again"]


def test_scores_are_written_as_shown_even_if_they_are_changed_afterwards(recorder):
    hit = node("a", 0.5)
    Fixed(hit, node("b", None)).retrieve("question")
    hit.score = 0.9
    (search,) = searches(recorder)
    assert [logged.score for logged in search.hits] == [0.5, None]


def test_a_search_that_found_nothing_is_written(recorder):
    Fixed().retrieve("question")
    assert [search.hits for search in searches(recorder)] == [()]


def test_collection_and_space_may_be_given_for_other_retrievers(tmp_path):
    with RetrievalRecorder(tmp_path / "log.sqlite", collection="docs", space="model@0123456789ab") as recorder:
        Fixed(node("a")).retrieve("question")
        (search,) = searches(recorder)
    assert (search.collection, search.space) == ("docs", "model@0123456789ab")


def test_hits_of_a_collection_of_ours_go_by_their_passage_ids(model, embedding, recorder):
    with closing(connect(":memory:")) as client:
        encoder = open_encoder(model, device="cpu")
        collection = CollectionManager(client).ensure("animals", encoder)
        index_passages(collection, [Passage(name, text) for name, text in TEXTS.items()], encoder)
        index = VectorStoreIndex.from_vector_store(QdrantVectorStore("animals", client=client), embed_model=embedding)
        index.as_retriever(similarity_top_k=3).retrieve("the cat")
    (search,) = searches(recorder)
    assert {hit.id for hit in search.hits} == set(TEXTS)
    assert (search.collection, search.space) == ("animals", encoder.space)


def test_many_threads_lose_nothing(recorder):
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(Fixed(node("a")).retrieve, [f"question {i}" for i in range(500)]))
    assert len(searches(recorder)) == recorder.recorded == 500 and recorder.failed == 0


def test_it_records_from_start_to_stop_only(tmp_path):
    before = list(get_dispatcher().span_handlers)
    recorder = RetrievalRecorder(tmp_path / "log.sqlite")
    Fixed(node("a")).retrieve("before")
    recorder.start().start()
    Fixed(node("a")).retrieve("during")
    recorder.stop()
    recorder.stop()
    Fixed(node("a")).retrieve("after")
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert [search.query for search in log.searches()] == ["during"]
    assert get_dispatcher().span_handlers == before


def test_queries_can_be_redacted_before_they_reach_the_disk(tmp_path):
    with (
        RetrievalLog(tmp_path / "log.sqlite", redact=lambda query: "hidden") as log,
        RetrievalRecorder(log) as recorder,
    ):
        Fixed(node("a")).retrieve("a secret")
        assert [search.query for search in searches(recorder)] == ["hidden"]


def test_a_warning_quotes_no_query(tmp_path, caplog):
    def rule(query):
        raise ValueError(f"cannot redact {query}")

    with RetrievalLog(tmp_path / "log.sqlite", redact=rule) as log, RetrievalRecorder(log) as recorder:
        Fixed(node("a")).retrieve("my secret")
        recorder.flush()
        assert recorder.failed == 1
    assert "1 entry is lost: ValueError" in caplog.text and "my secret" not in caplog.text


def test_a_full_disk_is_a_counted_warning_and_no_error_of_the_request(recorder, caplog):
    recorder.log._store._db.execute("PRAGMA max_page_count = 1")  # SQLite answers as on a full disk
    hits = [node("x" * 500) for _ in range(10)]
    for i in range(15):
        assert Fixed(*hits).retrieve(f"question {i}")
        recorder.flush()
    assert recorder.failed > 0
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 <= len(warned) <= 2 and "database or disk is full" in warned[0].getMessage()
    recorder.log._store._db.execute("PRAGMA max_page_count = 1000000")
    Fixed(node("a")).retrieve("after")
    assert searches(recorder)[-1].query == "after"


def test_a_log_that_somebody_holds_makes_searches_wait_in_a_bounded_queue_not_the_request(tmp_path, caplog):
    with RetrievalRecorder(tmp_path / "log.sqlite", capacity=10) as recorder:
        with recorder.log.batch():  # the writer has to wait for this block to end
            for i in range(50):
                assert Fixed(node("a")).retrieve(f"question {i}")
        recorder.flush()
        assert recorder.recorded + recorder.failed == 50
        assert recorder.recorded >= 10 and recorder.failed >= 1
    assert "more than 10 entries wait to be written" in caplog.text


def test_one_entry_that_cannot_be_written_takes_no_other_along(recorder, caplog):
    Fixed(node("a")).retrieve("one")
    recorder.feedback("no such search", "a", "click")
    Fixed(node("a")).retrieve("half \ud800 a character")
    Fixed(node("a")).retrieve("two")
    assert [search.query for search in searches(recorder)] == ["one", "two"]
    assert (recorder.recorded, recorder.failed) == (2, 2)
    with caplog.at_level("WARNING"):
        recorder.stop()
    assert "2 entries are lost in all" in caplog.text


def test_mistakes_of_the_programmer_are_errors_at_once(tmp_path, recorder):
    with pytest.raises(UsageError, match="is no result of a recorded search"):
        recorder.search_id(node("a"))
    with pytest.raises(InputError, match="feedback kind is 'like', expected one of click"):
        recorder.feedback("search", "a", "like")
    with pytest.raises(InputError, match="a thumb is 7"):
        recorder.answer_feedback("search", "thumb", 7)
    with pytest.raises(InputError, match="expected a list of ids"):
        recorder.answered("search", "text")
    with pytest.raises(UsageError, match="capacity is 0"):
        RetrievalRecorder(tmp_path / "log.sqlite", capacity=0)
    with pytest.raises(LogError, match="cannot open the retrieval log"):
        RetrievalRecorder(tmp_path / "missing" / "log.sqlite")


def test_results_that_are_forgotten_leave_nothing_behind(recorder):
    for i in range(100):
        Fixed(node("a")).retrieve(f"question {i}")
    recorder.flush()
    assert len(recorder._recorded_hits) <= 1
    assert not recorder._spans.inside and not recorder._spans.outermost


def test_a_program_that_ends_without_stopping_loses_nothing(tmp_path):
    program = """
        from llama_index.core import MockEmbedding, VectorStoreIndex
        from llama_index.core.schema import TextNode
        from llama_index_embed_plus.integrations.recorder import RetrievalRecorder
        recorder = RetrievalRecorder("log.sqlite").start()
        VectorStoreIndex([TextNode(text="a")], embed_model=MockEmbedding(4)).as_retriever().retrieve("question")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, cwd=tmp_path)
    with RetrievalLog(tmp_path / "log.sqlite") as log:
        assert [search.query for search in log.searches()] == ["question"]

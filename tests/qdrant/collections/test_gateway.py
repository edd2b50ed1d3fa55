"""A network that comes back is waited for; nothing else is tried twice."""

from __future__ import annotations

import httpx
import pytest
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from tiny import WordEncoder, numbered

from qdrant_tools.client import gateway as gateway_module
from qdrant_tools.client.connect import connect
from qdrant_tools.client.gateway import Gateway, Retry, engine_errors
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import EngineError, InputError, UnreachableError, VectorError
from qdrant_tools.indexing import IndexReport, index_passages


def answer(status: int) -> UnexpectedResponse:
    return UnexpectedResponse(status, "said", b"said", httpx.Headers())


SILENCE = ResponseHandlingException(httpx.ConnectError("connection refused"))


class Failing:
    """A call that fails with these errors, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        with engine_errors("do it"):
            if self.errors:
                raise self.errors.pop(0)
        return "done"


@pytest.fixture
def waits(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(gateway_module.time, "sleep", waited.append)
    return waited


def test_silence_and_a_busy_server_are_waited_for(waits):
    call = Failing(SILENCE, answer(503), answer(429), SILENCE)
    assert Retry()(call) == "done" and call.calls == 5
    assert len(waits) == 4
    assert all(0 <= waited <= 0.5 * 2**attempt for attempt, waited in enumerate(waits))


def test_a_server_that_says_how_long_to_wait_is_waited_for_up_to_the_longest_wait(waits):
    busy = [ResourceExhaustedResponse("too many requests", seconds) for seconds in (3, 1000)]
    call = Failing(*busy)
    assert Retry(longest=15.0)(call) == "done" and waits == [3, 15]


def test_the_waits_are_bounded_and_differ(waits):
    with pytest.raises(UnreachableError):
        Retry(attempts=40, first=1.0, longest=2.0)(Failing(*[SILENCE] * 40))
    assert max(waits) <= 2.0 and len(set(waits)) > 30


def test_the_last_error_leaves_as_it_is(waits):
    call = Failing(*[SILENCE] * 3)
    with pytest.raises(UnreachableError, match="does not answer"):
        Retry(attempts=3)(call)
    assert call.calls == 3


@pytest.mark.parametrize("error", [answer(401), answer(403), answer(400), answer(404), ValueError("wrong")])
def test_what_will_not_pass_is_not_tried_again(waits, error):
    call = Failing(error)
    with pytest.raises(Exception, match="cannot do it"):
        Retry()(call)
    assert call.calls == 1 and waits == []


def test_indexing_goes_on_after_the_network_came_back(waits, monkeypatch):
    client = connect(":memory:")
    encoder = WordEncoder()
    collection = CollectionManager(client).ensure("docs", encoder)
    upsert, errors = client.upsert, [SILENCE, answer(502)]

    def flaky(*args, **kwargs):
        if errors:
            raise errors.pop()
        return upsert(*args, **kwargs)

    monkeypatch.setattr(client, "upsert", flaky)
    assert index_passages(collection, numbered(5), encoder) == IndexReport(added=5)
    assert len(waits) == 2 and len(encoder.encoded) == 5, "nothing is encoded twice"


@pytest.fixture
def docs() -> Collection:
    docs = CollectionManager(connect(":memory:")).ensure("docs", WordEncoder())
    docs.index(numbered(5))
    return docs


def silent_once(monkeypatch, docs: Collection, method: str) -> None:
    """The first call of that method meets a silent server."""
    answered, errors = getattr(docs.client, method), [SILENCE]

    def call(*args, **kwargs):
        if errors:
            raise errors.pop()
        return answered(*args, **kwargs)

    monkeypatch.setattr(docs.client, method, call)


@pytest.mark.parametrize(
    ("method", "call", "answer"),
    [
        ("get_collection", lambda docs: docs.gateway.info().points_count, 5),
        ("count", lambda docs: docs.gateway.count(), 5),
        ("retrieve", lambda docs: sorted(docs.fetch(["p1", "p2"])), ["p1", "p2"]),
        ("scroll", lambda docs: sum(len(page) for page in docs.gateway.pages(batch_size=2)), 5),
        ("delete", lambda docs: docs.index(numbered(4), delete_missing=True).deleted, 1),
        ("update_collection", lambda docs: docs.gateway.update(metadata={"note": "x"}), None),
    ],
)
def test_what_may_be_done_twice_waits_for_the_network(waits, monkeypatch, docs, method, call, answer):
    silent_once(monkeypatch, docs, method)
    assert call(docs) == answer and len(waits) == 1


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("query_batch_points", lambda docs: docs.search("passage")),
        ("query_points_groups", lambda docs: docs.search_groups("passage", by="topic")),
        ("query_points", lambda docs: docs.gateway.sample(3)),
        ("create_collection", lambda docs: Gateway(docs.client, "new").create()),
        ("delete_collection", lambda docs: docs.gateway.drop()),
    ],
)
def test_searches_and_what_creates_or_drops_fail_at_once(waits, monkeypatch, docs, method, call):
    silent_once(monkeypatch, docs, method)
    with pytest.raises(UnreachableError, match="cannot (search|create|drop) collection '.*the server does not answer"):
        call(docs)
    assert waits == []


def test_every_error_names_the_collection(docs):
    nowhere = Gateway(docs.client, "nowhere")
    for call in (nowhere.info, nowhere.count, lambda: nowhere.retrieve([1]), lambda: nowhere.delete([1])):
        with pytest.raises(EngineError, match="cannot .* collection 'nowhere': "):
            call()


def test_an_encoder_that_fails_is_not_asked_twice(waits):
    encoder = WordEncoder()
    collection = CollectionManager(connect(":memory:")).ensure("docs", encoder)
    asked = []

    def broken(texts):
        asked.append(texts)
        raise VectorError("no vectors today")

    encoder.encode_passages = broken
    with pytest.raises(VectorError):
        index_passages(collection, numbered(2), encoder)
    assert len(asked) == 1 and waits == []


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"first": -1.0}, {"first": 5.0, "longest": 1.0}])
def test_a_retry_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match="expected at least 1 attempt"):
        Retry(**wrong)

"""Steps that only hand a list of documents on are no searches of their own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from qdrant_tools.traces.passed_on import without_echoes
from qdrant_tools.traces.records import Span, SpanDocument

BEGIN = datetime(2026, 5, 1, 9, tzinfo=UTC)


def documents(*names: str) -> tuple[SpanDocument, ...]:
    return tuple(SpanDocument(place, name) for place, name in enumerate(names))


def step(id: str, parent: str | None, seconds: float, *names: str, query: str = "q", implied: bool = True) -> Span:
    return Span(
        "t", id, parent, "retrieval", query=query, documents=documents(*names), implied=implied,
        at=BEGIN, until=BEGIN + timedelta(seconds=seconds),
    )  # fmt: skip


def kept(*spans: Span) -> list[str]:
    return [span.id for span in without_echoes(spans) if span.documents is not None]


def test_the_step_that_had_a_list_first_has_found_it() -> None:
    root = step("root", None, 9, "a", "b")
    assert kept(root, step("retrieve", "root", 2, "a", "b"), step("generate", "root", 8, "a", "b")) == ["retrieve"]


def test_a_span_that_is_called_a_retriever_goes_before_what_holds_it() -> None:
    retriever = step("retriever", "parallel", 3, "a", "b", implied=False)
    # the ids of the outer list are others: a citation engine makes new ones
    assert kept(step("parallel", None, 4, "x", "y"), retriever) == ["retriever"]


def test_a_part_of_a_list_in_its_order_is_an_echo_and_another_order_for_another_query_is_none() -> None:
    first = step("retrieve", "root", 1, "a", "b", "c")
    assert kept(first, step("grade", "root", 2, "a", "c")) == ["retrieve"]
    assert kept(first, step("sort", "root", 2, "c", "a")) == ["retrieve"]
    assert kept(first, step("again", "root", 2, "c", "a", query="other")) == ["retrieve", "again"]


def test_a_state_that_collects_lists_is_an_echo_of_them() -> None:
    first, second = step("one", "root", 1, "a", "b", query="p"), step("two", "root", 2, "c", query="r")
    assert kept(step("root", None, 5, "a", "b", "c", query="s"), first, second) == ["one", "two"]


def test_an_echo_stays_in_the_tree_with_its_answer() -> None:
    root = replace(step("root", None, 9, "a"), answer="It is.")
    (outer, _) = without_echoes([root, step("retrieve", "root", 1, "a")])
    assert (outer.kind, outer.answer, outer.implied) == ("chain", "It is.", False)


def test_a_circle_of_parents_ends() -> None:
    assert kept(step("one", "two", 1, "a"), step("two", "one", 2, "a")) == ["one"]


def test_without_ends_what_lies_deeper_was_first() -> None:
    root, found = step("root", None, 9, "a", "b"), step("retrieve", "root", 1, "a", "b", "c")
    graded = replace(step("grade", "root", 2, "a", "b"), at=BEGIN + timedelta(seconds=1))
    assert kept(*(replace(span, until=None) for span in (root, found, graded))) == ["retrieve"]

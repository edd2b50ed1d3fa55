"""Events of LlamaIndex' instrumentation: real engines run, and their events are dumped as applications dump them."""

import json
from datetime import UTC

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.tools import QueryEngineTool

from qdrant_tools.errors import InputError
from qdrant_tools.traces.importer import read_traces
from qdrant_tools.traces.records import TraceSettings

TEXTS = ["Pumice floats on water.", "Slate splits into thin sheets.", "Chalk is made of tiny shells."]


class Dump(BaseEventHandler):
    """Keeps every event that can be dumped; LlamaIndex' own cannot all be."""

    lines: list = []
    with_names: bool = False

    def handle(self, event, **kwargs):
        try:
            row = event.model_dump_json()
        except Exception:
            return
        self.lines.append(json.dumps(json.loads(row) | ({"class_name": event.class_name()} if self.with_names else {})))


@pytest.fixture(params=[False, True], ids=["without types", "with types"])
def dump(request):
    handler, dispatcher = Dump(lines=[], with_names=request.param), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


class Two(BaseQuestionGenerator):
    def _get_prompts(self):
        return {}

    def _update_prompts(self, prompts):
        pass

    def generate(self, tools, query):
        return [SubQuestion(sub_question=text, tool_name="rocks") for text in ("what floats", "what splits")]

    async def agenerate(self, tools, query):
        return self.generate(tools, query)


def index():
    return VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=MockEmbedding(4))


def engine(found):
    retriever = index().as_retriever(similarity_top_k=2)
    inside = retriever._retrieve
    kept = [SimilarityPostprocessor(similarity_cutoff=0.1)]

    def retrieve(bundle):
        nodes = inside(bundle)
        found.append((bundle.query_str, [node.node.node_id for node in nodes]))
        return nodes

    retriever._retrieve = retrieve
    return RetrieverQueryEngine.from_args(retriever, llm=MockLLM(max_tokens=4), node_postprocessors=kept)


def imported(dump, folder, zone=UTC):
    file = folder / "events.jsonl"
    file.write_text("\n".join(dump.lines) + "\n", encoding="utf-8")
    with read_traces(file, TraceSettings(zone=zone)) as traces:
        return list(traces.searches()), traces.report


def test_each_retrieval_is_a_search_with_the_answer_of_its_query(dump, tmp_path):
    found = []
    asked = engine(found)
    answers = [str(asked.query(question)) for question in ("Which rock floats?", "What splits?")]
    searches, report = imported(dump, tmp_path)
    assert [(search.query, [hit.id for hit in search.hits]) for search in searches] == found
    assert [search.answer.text for search in searches] == answers
    assert [search.answer.searches for search in searches] == [1, 1]
    assert set(report.forms.values()) == {"llamaindex"} and report.dropped == {}


def test_a_retriever_by_itself_is_a_search_without_an_answer(dump, tmp_path):
    index().as_retriever(similarity_top_k=1).retrieve("What floats?")
    (search,), _ = imported(dump, tmp_path)
    assert (search.query, search.answer) == ("What floats?", None)


def test_sub_questions_were_asked_by_the_engine(dump, tmp_path):
    found = []
    tool = QueryEngineTool.from_defaults(engine(found), name="rocks", description="rocks")
    SubQuestionQueryEngine.from_defaults(
        [tool], llm=MockLLM(max_tokens=4), question_gen=Two(), use_async=False, verbose=False
    ).query("What floats and what splits?")
    searches, _ = imported(dump, tmp_path)
    assert [(search.query, search.generated) for search in searches] == [("what floats", True), ("what splits", True)]
    assert {search.answer.searches for search in searches} == {2}


def test_of_two_queries_at_a_time_each_keeps_its_own_answer(dump, tmp_path):
    found = []
    asked = engine(found)
    dump.lines.clear()
    asked.query("Which rock floats?")
    first = list(dump.lines)
    dump.lines.clear()
    asked.query("What splits?")
    second = list(dump.lines)
    # as threads write them: one event of each in turn
    dump.lines[:] = [line for pair in zip(first, second, strict=True) for line in pair]
    searches, _ = imported(dump, tmp_path)
    assert sorted((search.query, search.answer.searches) for search in searches) == [
        ("What splits?", 1),
        ("Which rock floats?", 1),
    ]
    assert len({search.answer.id for search in searches}) == 2


def test_without_a_zone_the_local_times_are_refused_with_the_way_out(dump, tmp_path):
    index().as_retriever(similarity_top_k=1).retrieve("What floats?")
    with pytest.raises(InputError, match=r"events\.jsonl:\d+.*--timezone"):
        imported(dump, tmp_path, zone=None)


def test_no_query_of_one_file_is_open_in_the_next(dump, tmp_path):
    engine([]).query("Which rock floats?")
    lines = list(dump.lines)
    started = next(place for place, line in enumerate(lines) if '"str_or_query_bundle"' in line and '"nodes"' in line)
    (tmp_path / "one").mkdir()
    dump.lines[:] = lines[:started]
    cut = tmp_path / "one" / "cut.jsonl"
    cut.write_text("\n".join(dump.lines) + "\n", encoding="utf-8")
    rest = tmp_path / "rest.jsonl"
    rest.write_text("\n".join(lines[started:]) + "\n", encoding="utf-8")
    with read_traces([cut, rest], TraceSettings(zone=UTC)) as traces:
        (search,) = traces.searches()
    assert search.answer is None

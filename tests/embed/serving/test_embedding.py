"""PlusEmbedding keeps LlamaIndex's contract: Fields, caches, events, pipelines, pickles, and no wrong vector."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import multiprocessing
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index_instrumentation import get_dispatcher
from models import TEXTS, save_model
from paths import ROOT
from pydantic import ValidationError

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.encoders.adapter import QueryAdapter, attach_adapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import ModelError, ModelNotFoundError, TextError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.serving.cache import VectorCache
from llama_index_embed_plus.serving.fields import ELSEWHERE, EmbeddingFields
from qdrant_tools.errors import UsageError

PROMPTS = {"query": "query : ", "document": "passage : "}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Tiny models by name: `base`, one that differs in its weights, and one served by ONNX."""
    folder = tmp_path_factory.mktemp("models")
    for name, options in {"base": {}, "weights": {"seed": 1}}.items():
        save_model(folder / name, prompts=PROMPTS, **options)
    export_onnx(folder / "base", folder / "onnx")
    return folder


@pytest.fixture(scope="module")
def reference(models):
    return open_encoder(models / "base", device="cpu")


@pytest.fixture
def embedding(models):
    return PlusEmbedding(models / "base", device="cpu")


class Events(BaseEventHandler):
    """Keeps the embedding events of LlamaIndex's instrumentation."""

    seen: list = []

    def handle(self, event, **_):
        if isinstance(event, EmbeddingStartEvent | EmbeddingEndEvent):
            self.seen.append(event)

    def embedded(self) -> list[str]:
        return [text for event in self.seen if isinstance(event, EmbeddingEndEvent) for text in event.chunks]


@pytest.fixture
def events():
    handler, dispatcher = Events(seen=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


class Turns(BaseRateLimiter):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.sync = self.asynchronous = 0

    def acquire(self, num_tokens=0):
        self.sync += 1

    async def async_acquire(self, num_tokens=0):
        self.asynchronous += 1


def nodes(*texts: str) -> list[TextNode]:
    return [TextNode(text=text) for text in texts]


# Vectors


def test_it_is_a_llamaindex_embedding():
    assert BaseEmbedding in PlusEmbedding.__mro__
    assert PlusEmbedding.class_name() == "PlusEmbedding"


async def test_every_method_gives_the_encoders_vectors_as_lists_of_floats(embedding, reference):
    query, passages = reference.encode_queries(["a dog"])[0], reference.encode_passages(TEXTS)
    for vector in (embedding.get_query_embedding("a dog"), await embedding.aget_query_embedding("a dog")):
        assert type(vector) is list and type(vector[0]) is float
        np.testing.assert_allclose(vector, query, atol=1e-6)
    for vectors in (embedding.get_text_embedding_batch(TEXTS), await embedding.aget_text_embedding_batch(TEXTS)):
        assert type(vectors) is list and type(vectors[0]) is list
        np.testing.assert_allclose(vectors, passages, atol=1e-6)
    for vector in (embedding.get_text_embedding(TEXTS[0]), await embedding.aget_text_embedding(TEXTS[0])):
        np.testing.assert_allclose(vector, passages[0], atol=1e-6)
    np.testing.assert_allclose(embedding.get_agg_embedding_from_queries(["a dog"]), query, atol=1e-6)


def test_queries_and_passages_each_get_the_prompt_that_the_model_was_saved_with(embedding, models):
    outside = save_model(models / "base", prompts=PROMPTS)
    one, other = embedding.get_query_embedding("a dog"), embedding.get_text_embedding("a dog")
    np.testing.assert_allclose(one, outside.encode_query("a dog", normalize_embeddings=True), atol=1e-6)
    np.testing.assert_allclose(other, outside.encode_document("a dog", normalize_embeddings=True), atol=1e-6)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("size", [1, 3, 2048])
def test_the_batch_size_changes_no_vector_and_no_order(models, reference, size):
    texts = [" ".join(["cat"] * (i % 7 + 1)) + f" {i}" for i in range(40)]
    vectors = PlusEmbedding(models / "base", device="cpu", embed_batch_size=size).get_text_embedding_batch(texts)
    np.testing.assert_allclose(vectors, reference.encode_passages(texts), atol=1e-6)


def test_repeated_texts_get_equal_vectors_that_are_not_the_same_list(embedding):
    first, _, third = embedding.get_text_embedding_batch(["a dog", "fast", "a dog"])
    assert first == third and first is not third


def test_no_texts_give_no_vectors_and_open_nothing(embedding):
    assert embedding.get_text_embedding_batch([]) == []
    assert embedding._service is None


async def test_many_users_asking_at_once_get_the_vectors_of_their_own_questions(embedding, reference):
    questions = [f"{word} {i % 16}" for i, word in enumerate(["cat", "dog", "tree", "bird"] * 16)]
    vectors = await asyncio.gather(*(embedding.aget_query_embedding(question) for question in questions))
    np.testing.assert_allclose(vectors, reference.encode_queries(questions), atol=1e-6)


# Bad input


@pytest.mark.parametrize("bad", [object(), None, b"bytes", 3, "", " \n\t", "half \ud800 a pair"])
async def test_a_bad_text_is_one_clear_error_at_once_and_nothing_is_computed(embedding, events, bad):
    for attempt in (embedding.get_text_embedding_batch, embedding.get_query_embedding, embedding.get_text_embedding):
        with pytest.raises(TextError) as caught:
            attempt(["fine", bad]) if attempt == embedding.get_text_embedding_batch else attempt(bad)
        assert "\n" not in str(caught.value)
    with pytest.raises(TextError):
        await embedding.aget_query_embedding(bad)
    with pytest.raises(TextError):
        await embedding.aget_text_embedding_batch(["fine", bad])
    assert events.seen == [] and embedding._service is None


def test_an_unknown_model_is_an_error_when_the_embedding_is_made():
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        PlusEmbedding("no-such-model")
    for name in ("", " "):
        with pytest.raises(UsageError, match=f"model is {name!r}, expected a name or a folder"):
            PlusEmbedding(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("trunkate_dim", "'trunkate_dim': did you mean truncate_dim?"),
        ("max_length", "'max_length': it is max_tokens here"),
        ("query_instruction", "it is query_prompt here, written with the space"),
        ("text_instruction", "it is passage_prompt here"),
        ("dimensions", "it is truncate_dim here"),
        ("xyzzy", "its fields are backend, batch_tokens, .*trust_remote_code"),
    ],
)
def test_an_unknown_field_is_answered_with_the_one_that_is_meant(models, name, meant):
    with pytest.raises(UsageError, match=meant) as refused:
        PlusEmbedding(models / "base", **{name: 8})
    assert "\n" not in str(refused.value)


def test_several_unknown_fields_are_answered_at_once(models):
    with pytest.raises(UsageError, match="max_tokens here; no field 'cache_dir': it is cache_folder"):
        PlusEmbedding(models / "base", max_length=8, cache_dir="x")


def test_names_of_other_embeddings_are_answered_with_fields_that_exist(models):
    for name, meant in ELSEWHERE.items():
        assert name not in PlusEmbedding.model_fields
        found = re.match(r"(?:it is|they are) (\w+)", meant)
        assert found is None or found[1] in PlusEmbedding.model_fields


def test_type_checkers_and_editors_know_every_field():
    assert set(EmbeddingFields.__annotations__) | {"model"} == set(PlusEmbedding.model_fields)


def test_mypy_refuses_a_field_that_there_is_not_and_a_value_of_another_type(tmp_path):
    lines = {
        "PlusEmbedding('m', query_prompt='query: ', max_tokens=128, truncate_dim=64)": None,
        "PlusEmbedding(model_name='m', callback_manager=CallbackManager([]))": None,
        "PlusEmbedding('m', nonsense=1)": 'Unexpected keyword argument "nonsense"',
        "PlusEmbedding('m', query_prompt=1)": 'expected "str | None"',
        "PlusEmbedding('m', backend='cuda')": "expected",
    }
    module = tmp_path / "uses.py"
    imports = [
        "from llama_index.core.callbacks import CallbackManager",
        "from llama_index_embed_plus import PlusEmbedding",
    ]
    # a module that says the same as one of an earlier run is reported with that one's path
    module.write_text("\n".join([*imports, *lines, f"# {module}"]) + "\n")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(module)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    for number, (line, said) in enumerate(lines.items(), start=len(imports) + 1):
        found = [error for error in checked.stdout.splitlines() if error.startswith(f"{module}:{number}:")]
        assert (said is None and not found) or (found and said and said in found[0]), (line, checked.stdout)


@pytest.mark.parametrize("options", [{"threads": 0}, {"on_mismatch": "ignore"}, {"backend": "tensorflow"}])
def test_a_setting_that_cannot_be_honoured_is_refused_when_the_embedding_is_made(models, options):
    with pytest.raises(UsageError, match="expected"):
        PlusEmbedding(models / "base", **options)


def test_llamaindex_name_for_the_model_works_and_must_not_contradict(models):
    assert PlusEmbedding(model_name=str(models / "base")).model == str(models / "base")
    with pytest.raises(UsageError, match="give one of them"):
        PlusEmbedding("one", model_name="another")


def test_what_an_embedding_is_cannot_be_changed_afterwards(embedding):
    with pytest.raises(ValidationError, match="frozen"):
        embedding.truncate_dim = 8
    embedding.embed_batch_size = 64


# Fields, serialisation, pickles


def test_the_fields_are_the_constructors_arguments(embedding):
    assert set(inspect.signature(PlusEmbedding).parameters) == set(PlusEmbedding.model_fields)
    shown = embedding.to_dict()
    assert shown["pooling"] == "mean" and shown["query_prompt"] == "query : " and shown["dimension"] == 32
    assert shown["build"] == "torch-fp32" and "@" in shown["space"] and shown["max_tokens"] == 24


@pytest.mark.parametrize(
    "again",
    [
        lambda e: PlusEmbedding.from_dict(e.to_dict()),
        lambda e: PlusEmbedding.from_json(e.to_json()),
        lambda e: pickle.loads(pickle.dumps(e)),
        copy.deepcopy,
        copy.copy,
        lambda e: e.model_copy(deep=True),
    ],
    ids=["dict", "json", "pickle", "deepcopy", "copy", "model_copy"],
)
@pytest.mark.parametrize("options", [{}, {"truncate_dim": 8, "pooling": ("cls", "mean"), "query_prompt": "what is "}])
def test_a_copy_is_the_same_embedding(models, again, options):
    embedding = PlusEmbedding(models / "base", device="cpu", embed_batch_size=7, num_workers=3, **options)
    vector = embedding.get_query_embedding("a dog")
    twin = again(embedding)
    assert twin.to_dict() == embedding.to_dict()
    np.testing.assert_allclose(twin.get_query_embedding("a dog"), vector, atol=1e-6)


def test_options_change_what_is_computed_as_they_say(models, reference):
    cut = PlusEmbedding(models / "base", truncate_dim=8, passage_prompt="")
    assert cut.dimension == 8 and cut.space != reference.space
    np.testing.assert_allclose(np.linalg.norm(cut.get_text_embedding("a dog")), 1, atol=1e-6)
    assert PlusEmbedding(models / "base", passage_prompt="query : ").get_text_embedding("a dog") == pytest.approx(
        reference.encode_queries(["a dog"])[0].tolist(), abs=1e-6
    )


def test_a_model_that_changed_under_its_name_is_refused_instead_of_giving_other_vectors(models, tmp_path):
    shutil.copytree(models / "base", tmp_path / "model")
    saved = PlusEmbedding(tmp_path / "model", device="cpu").to_dict()
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(models / "weights", tmp_path / "model")
    with pytest.raises(ModelError, match=r"is now of space .*, this embedding was made for "):
        PlusEmbedding.from_dict(saved).get_query_embedding("a dog")


def test_an_identity_that_the_model_does_not_have_is_refused(models):
    with pytest.raises(UsageError, match="leave build out"):
        PlusEmbedding(models / "base", build="onnx-int8")


def test_another_build_of_the_same_space_is_reported_and_used(models, caplog):
    saved = PlusEmbedding(models / "onnx").to_dict() | {"model": str(models / "base"), "model_name": None}
    moved = PlusEmbedding.from_dict(saved)
    with caplog.at_level(logging.WARNING):
        moved.get_query_embedding("a dog")
    assert "computed by build torch-fp32 instead of onnx-fp32" in caplog.text
    assert moved.build == "torch-fp32"


async def test_a_forked_process_opens_the_model_anew_instead_of_waiting_for_lost_threads(models):
    embedding = PlusEmbedding(models / "onnx")
    vectors = await asyncio.gather(*(embedding.aget_query_embedding(text) for text in TEXTS))
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=lambda: answers.put(asyncio.run(embedding.aget_query_embedding(TEXTS[0]))))
    child.start()
    assert answers.get(timeout=300) == pytest.approx(vectors[0], abs=1e-6)
    child.join()


# Without torch


def test_making_an_embedding_imports_no_torch_and_an_onnx_build_never_does(models):
    code = (
        "import sys; from llama_index_embed_plus import PlusEmbedding\n"
        f"made = PlusEmbedding({str(models / 'base')!r})\n"
        f"vector = PlusEmbedding({str(models / 'onnx')!r}).get_query_embedding('a dog')\n"
        "print(len(vector), 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["32", "False", "False"]


def test_the_onnx_build_gives_torchs_vectors_in_the_same_space(models, reference):
    onnx = PlusEmbedding(models / "onnx")
    assert (onnx.build, onnx.space) == ("onnx-fp32", reference.space)
    np.testing.assert_allclose(onnx.get_text_embedding_batch(TEXTS), reference.encode_passages(TEXTS), atol=1e-4)


# Ingestion


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("weights", {}),
        ("onnx", {}),
        ("base", {"pooling": "cls"}),
        ("base", {"passage_prompt": ""}),
        ("base", {"query_prompt": ""}),
        ("base", {"truncate_dim": 8}),
        ("base", {"max_tokens": 12}),
    ],
    ids=["weights", "precision", "pooling", "passage prompt", "query prompt", "dimension", "max tokens"],
)
def test_the_ingestion_cache_notices_every_change_of_identity(models, tmp_path, model, options):
    shutil.copytree(models / "base", tmp_path / "model")
    before = PlusEmbedding(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(models / model, tmp_path / "model")
    after = PlusEmbedding(tmp_path / "model", **options)
    some = nodes("a dog")
    assert get_transformation_hash(some, before) != get_transformation_hash(some, after)


def test_an_ingestion_pipeline_embeds_once_and_again_only_for_another_model(models, embedding, events):
    pipeline = IngestionPipeline(transformations=[embedding])
    pipeline.run(documents=[Document(text=text, id_=text) for text in TEXTS])
    assert events.embedded() == TEXTS
    again = IngestionPipeline(transformations=[PlusEmbedding(models / "base", device="cpu")], cache=pipeline.cache)
    again.run(documents=[Document(text=text, id_=text) for text in TEXTS])
    assert events.embedded() == TEXTS
    other = IngestionPipeline(transformations=[PlusEmbedding(models / "weights")], cache=pipeline.cache)
    other.run(documents=[Document(text=text, id_=text) for text in TEXTS])
    assert events.embedded() == TEXTS * 2


def test_a_pipeline_with_spawned_workers_gives_the_same_vectors(models, reference):
    pipeline = IngestionPipeline(transformations=[PlusEmbedding(models / "onnx")], disable_cache=True)
    done = pipeline.run(documents=[Document(text=text) for text in TEXTS], num_workers=2)
    found = {node.text: node.embedding for node in done}
    np.testing.assert_allclose([found[text] for text in TEXTS], reference.encode_passages(TEXTS), atol=1e-4)


async def test_a_pipeline_runs_asynchronously(embedding, reference):
    done = await IngestionPipeline(transformations=[embedding]).arun(documents=[Document(text=text) for text in TEXTS])
    np.testing.assert_allclose([node.embedding for node in done], reference.encode_passages(TEXTS), atol=1e-6)


def test_it_serves_as_the_embedding_of_settings_and_of_an_index(embedding, monkeypatch):
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = embedding
    index = VectorStoreIndex(nodes(*TEXTS))
    assert index.as_retriever(similarity_top_k=1).retrieve(TEXTS[0])[0].text == TEXTS[0]


# Nodes that are embedded already


def test_a_node_that_carries_the_embedding_of_its_text_is_not_embedded_again(embedding, events):
    some = nodes("a dog", "a cat")
    embedding(some)
    before = [node.embedding for node in some]
    embedding([*some, *nodes("a bird")])
    assert events.embedded() == ["a dog", "a cat", "a bird"]
    assert [node.embedding for node in some] == before


async def test_that_survives_saving_the_node(embedding, events):
    some = nodes("a dog")
    await embedding.acall(some)
    await embedding.acall([TextNode.from_json(node.to_json()) for node in some])
    assert events.embedded() == ["a dog"]


def test_a_node_whose_text_changed_is_embedded_again(embedding):
    (node,) = embedding(nodes("a dog"))
    node.set_content("a cat")
    embedding([node])
    assert node.embedding == pytest.approx(embedding.get_text_embedding("a cat"))


def test_a_node_with_another_models_embedding_is_embedded_again(models, embedding):
    (node,) = PlusEmbedding(models / "weights", device="cpu")(nodes("a dog"))
    foreign = TextNode(text="a dog", embedding=[1.0] * 32)
    embedding([node, foreign])
    assert node.embedding == foreign.embedding == pytest.approx(embedding.get_text_embedding("a dog"))


def test_a_document_store_recognises_embedded_documents(embedding):
    (node,) = nodes("a dog")
    before, text = node.hash, node.get_content()
    embedding([node])
    assert (node.hash, node.get_content(), node.metadata) == (before, text, {})
    docstore = SimpleDocumentStore()
    docstore.add_documents([node])
    assert docstore.get_document(node.id_).excluded_embed_metadata_keys == node.excluded_embed_metadata_keys


# Caches


async def test_the_embeddings_cache_keeps_queries_passages_and_models_apart(models, events):
    store = SimpleKVStore()
    one, other = (PlusEmbedding(models / name, device="cpu", embeddings_cache=store) for name in ("base", "weights"))
    vectors = [
        one.get_text_embedding("a dog"),
        one.get_query_embedding("a dog"),
        await other.aget_text_embedding("a dog"),
        (await other.aget_text_embedding_batch(["a dog", "a cat"]))[1],
    ]
    plain = [PlusEmbedding(models / name, device="cpu") for name in ("base", "weights")]
    np.testing.assert_allclose(vectors[0], plain[0].get_text_embedding("a dog"), atol=1e-6)
    np.testing.assert_allclose(vectors[1], plain[0].get_query_embedding("a dog"), atol=1e-6)
    np.testing.assert_allclose(vectors[2], plain[1].get_text_embedding("a dog"), atol=1e-6)
    assert len(store.get_all("embeddings")) == 4


def test_the_embeddings_cache_is_not_fooled_by_what_another_model_left_under_the_bare_text(models, reference):
    store = SimpleKVStore()
    store.put("a dog", {"uuid": [9.0] * 32}, collection="embeddings")
    vector = PlusEmbedding(models / "base", device="cpu", embeddings_cache=store).get_query_embedding("a dog")
    np.testing.assert_allclose(vector, reference.encode_queries(["a dog"])[0], atol=1e-6)


async def test_a_cached_text_is_not_computed_again(models):
    turns = Turns()
    cached = PlusEmbedding(models / "base", device="cpu", embeddings_cache=SimpleKVStore(), rate_limiter=turns)
    first = cached.get_text_embedding_batch(["a dog", "a cat", "a dog"])
    assert cached.get_text_embedding("a dog") == first[0]
    assert await cached.aget_text_embedding_batch(["a cat", "a dog"]) == [first[1], first[0]]
    assert (turns.sync, turns.asynchronous) == (1, 0)


def test_the_vector_cache_outlives_the_embedding(models, tmp_path):
    path = tmp_path / "vectors.sqlite"
    first = PlusEmbedding(models / "base", device="cpu", vector_cache=path).get_text_embedding_batch(TEXTS)
    again = PlusEmbedding(models / "base", device="cpu", vector_cache=path)
    assert again.get_text_embedding_batch(TEXTS) == first
    assert again.get_query_embedding(TEXTS[0]) != first[0]
    assert len(VectorCache(path)) == len(TEXTS) + 1


def test_a_new_adapter_changes_cached_queries_but_leaves_passages_and_ingestion_alone(models, reference, tmp_path):
    bare = PlusEmbedding(models / "base", device="cpu", vector_cache=tmp_path / "vectors.sqlite")
    queries = [bare.get_query_embedding("a dog")]
    for seed in (0, 1):
        weight = np.random.default_rng(seed).standard_normal((32, 32)).astype(np.float32)
        attach_adapter(models / "base", QueryAdapter(weight, reference.space), tmp_path / f"adapted-{seed}")
        adapted = PlusEmbedding(tmp_path / f"adapted-{seed}", backend="torch", vector_cache=tmp_path / "vectors.sqlite")
        queries.append(adapted.get_query_embedding("a dog"))
        assert (adapted.space, adapted.build) == (bare.space, bare.build)
        assert adapted.get_text_embedding("a dog") == bare.get_text_embedding("a dog")
    assert not any(np.allclose(queries[i], queries[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


# Limits, events, progress


async def test_the_rate_limiter_is_asked_once_per_batch_size_of_texts(models):
    turns = Turns()
    limited = PlusEmbedding(models / "base", device="cpu", embed_batch_size=2, rate_limiter=turns)
    limited.get_text_embedding_batch(["one", "two", "three", "cat", "dog"])
    limited.get_query_embedding("one")
    assert (turns.sync, turns.asynchronous) == (4, 0)
    await limited.aget_text_embedding_batch(["one", "two", "three"])
    await limited.aget_query_embedding("one")
    assert (turns.sync, turns.asynchronous) == (4, 3)


async def test_events_report_every_call_with_its_texts_and_vectors(embedding, events):
    vectors = embedding.get_text_embedding_batch(["a dog", "a cat"]) + [await embedding.aget_query_embedding("a bird")]
    start, end, second_start, second_end = events.seen
    for event in (start, second_start):
        assert event.model_dict["space"] == embedding.space and event.model_dict["class_name"] == "PlusEmbedding"
    assert (end.chunks, second_end.chunks) == (["a dog", "a cat"], ["a bird"])
    assert end.embeddings + second_end.embeddings == vectors
    json.dumps(start.model_dict)
    EmbeddingEndEvent.model_validate(end.model_dump())


def test_callbacks_get_the_payload_that_llamaindex_promises(models):
    class Handler(BaseCallbackHandler):
        def __init__(self):
            super().__init__([], [])
            self.ended = []

        def on_event_start(self, event_type, payload=None, event_id="", parent_id="", **_):
            assert EventPayload.SERIALIZED in payload
            return event_id

        def on_event_end(self, event_type, payload=None, event_id="", **_):
            self.ended.append((event_type, payload))

        def start_trace(self, trace_id=None): ...

        def end_trace(self, trace_id=None, trace_map=None): ...

    handler = Handler()
    embedding = PlusEmbedding(models / "base", device="cpu", callback_manager=CallbackManager([handler]))
    vectors = embedding.get_text_embedding_batch(["a dog", "a cat"])
    assert handler.ended == [
        (CBEventType.EMBEDDING, {EventPayload.CHUNKS: ["a dog", "a cat"], EventPayload.EMBEDDINGS: vectors})
    ]


def test_a_progress_bar_appears_on_request_only(embedding, capsys):
    embedding.get_text_embedding_batch(TEXTS)
    assert capsys.readouterr().err == ""
    embedding.get_text_embedding_batch(TEXTS, show_progress=True)
    assert f"{len(TEXTS)}/{len(TEXTS)}" in capsys.readouterr().err

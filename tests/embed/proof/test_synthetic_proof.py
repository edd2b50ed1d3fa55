"""A gain on queries that nobody asked: labelled wherever it is told, and no promotion unless a person accepts it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from models import save_model
from tiny import WordEncoder

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter, attaching_adapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.proof.model_card import model_card, record_proof, write_report
from llama_index_embed_plus.training.proof.proof import ProofSettings, prove
from llama_index_embed_plus.training.proof.report import Lineage, TrainReport, read_report
from llama_index_embed_plus.training.run import train
from llama_index_embed_plus.training.settings import AdapterSettings, TrainSettings
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.identity import PROMOTION_KEY
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, UsageError
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.promotion.verify import Gates
from qdrant_tools.records import Example, HeldOut, Passage, Query, ScoredText
from qdrant_tools.search.adapters import FullMap

PASSAGES = tuple(Passage(f"p{i}", f"topic{i} is told here. This is all there is of topic{i}") for i in range(40))
REAL = HeldOut(
    tuple(Query(f"q{i}", f"about topic{i} my secret is {i}") for i in range(30)),
    {f"q{i}": {f"p{i}": 1} for i in range(30)},
    PASSAGES,
)
MADE = replace(REAL, synthetic=True)
LABEL = "measured on synthetic queries only, which nobody asked: 30 synthetic held-out queries: ndcg@10 "


class Blind(WordEncoder):
    """Sees only the first word of a query."""

    def __init__(self) -> None:
        super().__init__("blind", 512)

    def encode_queries(self, texts):
        return super().encode_queries([text.split()[0] for text in texts])


SEEING = WordEncoder("seeing", 512)


def report(proof, **changes) -> TrainReport:
    lineage = Lineage("base", "blind@1", "torch-fp32", "tuned@2")
    return TrainReport("lora", {"loss": "x"}, {"examples": 3}, (1.0,), 1.0, 0, lineage, proof=proof, **changes)


def test_a_gain_on_synthetic_queries_is_labelled_and_not_harmless():
    gain, real = prove(Blind(), SEEING, MADE), prove(Blind(), SEEING, REAL)
    assert real.harmless and not real.only_synthetic and "synthetic" not in real.verdict
    assert gain.changes == real.changes and gain.refusals == () and gain.only_synthetic and not gain.harmless
    assert gain.verdict.startswith(LABEL)


def test_what_is_not_proved_on_them_either_is_nothing_that_can_be_accepted():
    for proof in (prove(SEEING, Blind(), MADE), prove(SEEING, SEEING, MADE), prove(Blind(), SEEING, few(MADE))):
        assert proof.refusals and not proof.only_synthetic and not proof.harmless
        assert "synthetic held-out queries" in proof.verdict
        assert not report(proof).only_synthetic


def few(held_out: HeldOut) -> HeldOut:
    return replace(held_out, queries=held_out.queries[:5])


def test_the_label_is_in_report_card_and_json_and_comes_back(tmp_path):
    made = report(prove(Blind(), SEEING, MADE))
    write_report(tmp_path, made)
    assert read_report(tmp_path) == made and not made.promotable and made.only_synthetic
    row = json.loads((tmp_path / "train_report.json").read_text())
    assert (row["promotable"], row["only_synthetic"], row["proof"]["synthetic"]) == (False, True, True)
    assert row["verdict"].startswith(LABEL)
    card = model_card(made)
    assert "**Measured on synthetic queries only**" in card and "not to be promoted: measured on synthetic" in card
    (result,) = ModelCard(card).data.eval_results[:1]
    assert result.dataset_name == "30 synthetic held-out queries"
    assert artifact.refusal(tmp_path) == artifact.Refusal(made.verdict, only_synthetic=True)


@pytest.mark.parametrize(
    "change",
    [{"promotable": True}, {"only_synthetic": False}, {"proof": {"synthetic": False}}],
)
def test_a_report_without_its_label_is_damaged(tmp_path, change):
    row = report(prove(Blind(), SEEING, MADE)).as_row()
    row |= {"proof": {**row["proof"], **change["proof"]}} if "proof" in change else change
    (tmp_path / "train_report.json").write_text(json.dumps(row))
    with pytest.raises(DamagedModelError, match="says promotable"):
        read_report(tmp_path)


def test_a_report_of_an_earlier_version_was_proved_on_real_queries(tmp_path):
    row = report(prove(Blind(), SEEING, REAL)).as_row()
    del row["only_synthetic"], row["proof"]["synthetic"], row["inherited_synthetic"]
    (tmp_path / "train_report.json").write_text(json.dumps(row))
    assert read_report(tmp_path).promotable and artifact.refusal(tmp_path) is None


def test_what_is_trained_from_it_inherits_the_label_and_the_way_out():
    real, made = prove(Blind(), SEEING, REAL), prove(Blind(), SEEING, MADE)
    first = report(made)
    second = report(real, inherited=first.verdict, inherited_synthetic=True)
    assert (
        not second.promotable and second.only_synthetic and "must not be promoted: measured on synth" in second.verdict
    )
    assert not report(real, inherited="worse").only_synthetic and not report(None).only_synthetic


@pytest.fixture
def sealed(tmp_path):
    """An artifact that was proved on synthetic queries alone."""
    save_model(tmp_path / "model")
    with artifact.draft_folder(tmp_path / "artifact") as draft:
        artifact.copy_model(tmp_path / "model", draft)
        write_report(draft, report(prove(Blind(), SEEING, MADE)))
        artifact.write_manifest(draft)
    return tmp_path / "artifact"


@pytest.fixture
def manager():
    with closing(connect(":memory:")) as client:
        manager, old = CollectionManager(client), WordEncoder()
        manager.ensure("first", old).index(PASSAGES)
        manager.switch_alias("docs", "first")
        yield manager


@pytest.mark.parametrize("in_place", [False, True])
def test_a_promotion_takes_it_only_if_somebody_says_so_each_time(sealed, manager, in_place):
    def begun() -> Promotion:  # as after a kill: nothing is kept between two calls but what is stored
        return Promotion(manager, "docs", open_encoder(sealed, backend="torch"), in_place=in_place)

    plan = begun().plan()
    assert plan.only_synthetic and plan.refusal.startswith(LABEL)
    with pytest.raises(CollectionError, match="synthetic queries only.*prove it on real queries.*--accept-synthetic"):
        begun().build()
    begun().build(accept_synthetic=True)
    with pytest.raises(CollectionError, match="synthetic queries only"):
        begun().build()
    assert begun().verify(Gates(recall=0.0)).passed
    with pytest.raises(CollectionError, match="synthetic queries only"):
        begun().switch()
    begun().switch(accept_synthetic=True)
    assert manager.open("docs").space == plan.to_space


def test_accepting_synthetic_queries_accepts_nothing_else(tmp_path, manager):
    save_model(tmp_path / "model")
    with artifact.draft_folder(tmp_path / "worse") as draft:
        artifact.copy_model(tmp_path / "model", draft)
        write_report(draft, report(prove(SEEING, Blind(), MADE)))
        artifact.write_manifest(draft)
    promotion = Promotion(manager, "docs", open_encoder(tmp_path / "worse", backend="torch"))
    with pytest.raises(CollectionError, match="worse on 30 synthetic held-out queries.*or force"):
        promotion.build(accept_synthetic=True)


def test_a_proof_on_real_queries_takes_the_label_away(sealed):
    encoder = open_encoder(sealed, backend="torch")
    assert encoder.only_synthetic
    real = replace(prove(Blind(), SEEING, REAL), after_space=encoder.space, before_space="blind@1")
    assert record_proof(sealed, real).promotable
    assert open_encoder(sealed, backend="torch").refusal is None
    again = replace(real, synthetic=True)
    assert not record_proof(sealed, again).promotable and open_encoder(sealed, backend="torch").only_synthetic


def test_an_export_keeps_the_label(sealed, tmp_path):
    export_onnx(sealed, tmp_path / "exported")
    encoder = open_encoder(tmp_path / "exported")
    assert encoder.only_synthetic and encoder.refusal.startswith(LABEL)


@pytest.fixture
def adapted(tmp_path):
    """A query adapter that was proved on synthetic queries alone, and its base, which serves."""
    save_model(tmp_path / "model")
    base = open_encoder(tmp_path / "model", device="cpu")
    weight = {"weight": 0.01 * base.encode_queries(["one"]).T @ base.encode_queries(["two"])}
    with attaching_adapter(tmp_path / "model", QueryAdapter(FullMap.of(weight), base.space), tmp_path / "out") as draft:
        write_report(draft, report(prove(Blind(), SEEING, MADE)))
    return base, open_encoder(tmp_path / "out", device="cpu")


def test_an_adapter_of_documents_alone_is_promoted_on_its_own_proof_if_somebody_accepts_it(adapted):
    base, better = adapted
    with closing(connect(":memory:")) as client:
        manager = CollectionManager(client)
        manager.ensure("first", base).index(PASSAGES)
        manager.switch_alias("docs", "first")
        promotion = Promotion(manager, "docs", better)
        with pytest.raises(UsageError, match="verified on held-out queries"):
            promotion.verify()
        with pytest.raises(CollectionError, match="synthetic queries only"):
            promotion.switch()
        verified = promotion.verify(accept_synthetic=True)
        assert verified.passed and "on synthetic queries" in verified.checks[0].name
        promotion.switch(accept_synthetic=True)
        assert manager.open("docs").adapter == better.adapter.build


def test_verifying_on_synthetic_queries_passes_only_if_accepted_and_is_kept_so(adapted):
    base, better = adapted
    clean = AdaptedEncoder(base, better.adapter)  # of no training: nothing is known against it
    with closing(connect(":memory:")) as client:
        manager = CollectionManager(client)
        manager.ensure("first", base).index(PASSAGES)
        manager.switch_alias("docs", "first")
        promotion, gates = Promotion(manager, "docs", clean), Gates(max_drop=1.0)
        failed = promotion.verify(gates, held_out=MADE, before=base)
        assert not failed.passed and "real queries is 0" in failed.failed[0]
        assert "on 30 synthetic held-out queries" in failed.checks[0].name
        with pytest.raises(CollectionError, match="has not passed verify.*real queries is 0"):
            promotion.switch(accept_synthetic=True)
        stored = manager.client.get_collection("first").config.metadata[PROMOTION_KEY]
        assert stored["verification"]["passed"] is False
        assert promotion.verify(gates, held_out=MADE, before=base, accept_synthetic=True).passed
        promotion.verify(gates, held_out=MADE, before=base)
        with pytest.raises(CollectionError, match="has not passed verify"):
            promotion.switch()
        assert promotion.verify(gates, held_out=REAL, before=base).passed, "real ones need no word of anybody"
        promotion.switch()


def test_training_on_what_is_synthetic_and_held_out_from_it_is_labelled(tmp_path):
    save_model(tmp_path / "model")
    base = open_encoder(tmp_path / "model", device="cpu")
    texts = [Passage(f"p{i}", f"the {a} and the {b}") for i, (a, b) in enumerate([("one", "cat"), ("two", "dog")] * 20)]
    made = [Example(f"what of {p.text} {p.id}", (ScoredText(p.id, p.text),), synthetic=True) for p in texts]
    with closing(connect(":memory:")) as client:
        docs = CollectionManager(client).ensure("docs", base)
        docs.index(texts)
        settings = TrainSettings(
            method="adapter",
            adapter=AdapterSettings(steps=(1,)),
            proof=ProofSettings(known_items=0),
            passages_apart=False,
            leak_similarity=None,
        )
        held_out = HeldOut.of_examples(made[30:])
        report = train(tmp_path / "model", made[:30], tmp_path / "out", settings, held_out=held_out, collection=docs)
    assert report.proof.synthetic and not report.promotable and "synthetic" in report.verdict
    assert report.data["synthetic"] == 30 and report.data["real"] == 0

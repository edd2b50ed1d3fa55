"""The report that travels with an artifact, its card, and the refusal that a promotion reads from it."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from huggingface_hub import ModelCard
from models import save_model
from sentence_transformers import SentenceTransformer
from tiny import WordEncoder

from llama_index_embed_plus.encoders.adapter import AdaptedEncoder, QueryAdapter, attach_adapter
from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training.proof.model_card import model_card, record_proof, write_report
from llama_index_embed_plus.training.proof.proof import Proof, ProofSettings, prove
from llama_index_embed_plus.training.proof.report import Lineage, Stage, TrainReport, read_report
from llama_index_embed_plus.training.trainer.progress import Meter, clock_time, report_loss, report_metric
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, UsageError
from qdrant_tools.indexing import index_passages
from qdrant_tools.promotion.promotion import Promotion
from qdrant_tools.records import HeldOut, Passage, Query

PASSAGES = tuple(Passage(f"p{i}", f"topic{i} is told here. This is all there is of topic{i}") for i in range(40))
HELDOUT = HeldOut(
    tuple(Query(f"q{i}", f"about topic{i} my secret is {i}") for i in range(30)),
    {f"q{i}": {f"p{i}": 1} for i in range(30)},
    PASSAGES,
)


class Blind(WordEncoder):
    """Sees only the first word of a query."""

    def __init__(self) -> None:
        super().__init__("blind", 512)

    def encode_queries(self, texts):
        return super().encode_queries([text.split()[0] for text in texts])


@pytest.fixture(scope="module")
def proofs() -> tuple[Proof, Proof]:
    """A proof that passes, and one that does not."""
    seeing = WordEncoder("seeing", 512)
    return prove(Blind(), seeing, HELDOUT), prove(seeing, Blind(), HELDOUT)


def report(proof: Proof | None = None, **changes) -> TrainReport:
    made = TrainReport(
        method="lora",
        settings={"loss": "multiple_negatives", "learning_rate": 5e-5, "lora": {"rank": 8}},
        data={"examples": 120, "negatives": 360},
        losses=(2.5, 1.25),
        seconds=12.5,
        seed=7,
        lineage=Lineage("all-MiniLM-L6-v2", "base@1", "torch-fp32", "tuned@2", (Lineage("older", "old@0", "b"),)),
        stages=(Stage("pairs", 2, {"ndcg@10": 0.75}, 3.5),),
        proof=proof,
        versions={"torch": "2.0"},
        notes=("the mini-batch was halved",),
    )
    return replace(made, **changes)


def test_what_was_written_is_what_is_read(proofs, tmp_path):
    for made in (report(), report(proofs[0]), report(proofs[1], inherited="bad base")):
        write_report(tmp_path, made)
        assert read_report(tmp_path) == made


def test_only_a_proof_that_excludes_harm_makes_promotable(proofs):
    good, bad = proofs
    assert good.harmless and report(good).promotable
    assert not report(bad).promotable and report(bad).verdict == bad.verdict
    assert not report().promotable and report().verdict == "not measured on held-out queries"
    inherited = report(good, inherited="worse on 30 held-out queries")
    assert not inherited.promotable and inherited.verdict.startswith("its base must not be promoted: worse")


def test_a_report_that_contradicts_its_proof_or_is_damaged_is_no_report(proofs, tmp_path):
    row = report(proofs[1]).as_row()
    file = tmp_path / "train_report.json"
    for changes, message in (
        ({"promotable": True}, "says promotable=True"),
        ({"format": 99}, "format 99, this version reads 2"),
        ({"losses": 3}, "is damaged"),
        ({"proof": {"k": 1}}, "is damaged"),
    ):
        with pytest.raises(DamagedModelError, match=message):
            file.write_text(json.dumps(row | changes))
            read_report(tmp_path)
    file.write_text("{")
    with pytest.raises(DamagedModelError, match="is no JSON"):
        read_report(tmp_path)
    file.unlink()
    assert read_report(tmp_path) is None
    file.write_text("{}")
    with pytest.raises(DamagedModelError, match=re.escape(str(tmp_path))):
        read_report(tmp_path)
    with pytest.raises(DamagedModelError, match="has no verdict"):
        artifact.refusal(tmp_path)


@pytest.fixture
def sealed(tmp_path):
    """An artifact that is not proved, as `train` writes it without held-out queries."""
    save_model(tmp_path / "model")
    folder = tmp_path / "artifact"
    with artifact.draft_folder(folder) as draft:
        artifact.copy_model(tmp_path / "model", draft)
        write_report(draft, report())
        artifact.write_manifest(draft)
    return folder


def test_an_encoder_says_why_its_artifact_must_not_be_promoted(sealed, proofs):
    encoder = open_encoder(sealed, backend="torch")
    assert encoder.refusal == "not measured on held-out queries"
    assert AdaptedEncoder(encoder, QueryAdapter.identity(32, encoder.space)).refusal == encoder.refusal
    with artifact.draft_folder(sealed) as draft:
        shutil.copytree(sealed, draft, dirs_exist_ok=True)
        write_report(draft, report(proofs[0]))
        artifact.write_manifest(draft)
    assert open_encoder(sealed, backend="torch").refusal is None


def test_neither_an_export_nor_an_adapter_on_top_loses_the_verdict(sealed, tmp_path):
    from llama_index_embed_plus.export.export import export_onnx

    export_onnx(sealed, tmp_path / "exported")
    assert open_encoder(tmp_path / "exported").refusal == "not measured on held-out queries"
    space = open_encoder(sealed, backend="torch").space
    attach_adapter(sealed, QueryAdapter.identity(32, space), tmp_path / "adapted")
    assert open_encoder(tmp_path / "adapted", backend="torch").refusal == "not measured on held-out queries"


def test_the_verdict_cannot_be_edited_or_taken_away(sealed):
    path = sealed / "train_report.json"
    text = path.read_text()
    path.write_text(text.replace('"promotable": false', '"promotable": true'))
    with pytest.raises(DamagedModelError, match="train_report.json is not the file that the manifest lists"):
        open_encoder(sealed, backend="torch")
    path.unlink()
    with pytest.raises(DamagedModelError, match="train_report.json is missing"):
        open_encoder(sealed, backend="torch")


def test_a_promotion_refuses_what_was_not_proved_unless_forced(sealed, tmp_path):
    old, new = WordEncoder(), open_encoder(sealed, backend="torch")
    with closing(connect(":memory:")) as client:
        manager = CollectionManager(client)
        index_passages(manager.ensure("first", old), PASSAGES[:5], old)
        manager.switch_alias("docs", "first")
        promotion = Promotion(manager, "docs", new)
        with pytest.raises(CollectionError, match="not measured on held-out queries.*or force"):
            promotion.build()
        promotion.build(force=True)
        promotion.verify()
        with pytest.raises(CollectionError, match="not measured on held-out queries"):
            promotion.switch()
        assert manager.resolve("docs") == "first"
        promotion.switch(force=True)
        assert manager.resolve("docs") != "first"


def test_a_later_proof_can_be_put_in_but_only_one_of_this_model(sealed, proofs, tmp_path):
    encoder = open_encoder(sealed, backend="torch")
    mine = replace(proofs[0], after_space=encoder.space, before_space="base@1")
    recorded = record_proof(sealed, mine)
    assert recorded.promotable and read_report(sealed) == recorded
    assert open_encoder(sealed, backend="torch").refusal is None
    assert f"{mine.changes[0].after:.4f}" in (sealed / "README.md").read_text()
    with pytest.raises(UsageError, match="the proof has the model seeing@"):
        record_proof(sealed, proofs[0])
    with pytest.raises(UsageError, match="the proof has the base blind@"):
        record_proof(sealed, replace(mine, before_space=proofs[0].before_space))
    assert [path.name for path in sealed.parent.iterdir() if path.name.startswith(".")] == []


def test_an_artifact_that_was_not_trained_here_takes_no_proof(tmp_path, proofs):
    save_model(tmp_path / "model")
    artifact.write_manifest(tmp_path / "model")
    with pytest.raises(UsageError, match="was not trained here"):
        record_proof(tmp_path / "model", proofs[0])
    assert open_encoder(tmp_path / "model", backend="torch").refusal is None


def test_the_card_is_read_by_the_hub_and_has_the_figures(proofs):
    text = model_card(report(proofs[0]))
    data = ModelCard(text).data
    assert data.library_name == "sentence-transformers" and data.base_model == "all-MiniLM-L6-v2"
    assert {"sentence-transformers", "dataset_size:120", "loss:multiple_negatives"} <= set(data.tags)
    assert data.eval_results[0].metric_value == round(proofs[0].changes[0].after, 4)
    for change in proofs[0].changes:
        row = f"| {change.metric} | {change.before:.4f} | {change.after:.4f} | {change.difference:+.4f} |"
        assert row in text
    assert "may be promoted" in text and "| learning_rate | 5e-05 |" in text and "| examples | 120 |" in text
    assert "`older` (`old@0`) → `all-MiniLM-L6-v2` (`base@1`) → this model (`tuned@2`)" in text


def test_the_card_says_when_nothing_was_measured():
    text = model_card(report())
    assert "Not measured: no held-out queries were given." in text and "not to be promoted" in text
    assert ModelCard(text).data.eval_results is None
    assert "ndcg@10 0.7500" in text  # what a stage measured is told as that of the stage


def test_a_report_holds_the_queries_ids_and_their_texts_only_on_request(proofs):
    assert "secret" not in json.dumps(report(proofs[0]).as_row())
    wins = [change.id for change in proofs[0].wins]
    assert wins and all(f'"id": "{name}"' in json.dumps(report(proofs[0]).as_row()) for name in wins)
    with_texts = report(prove(Blind(), WordEncoder("seeing", 512), HELDOUT, ProofSettings(texts=True)))
    assert "secret" in json.dumps(with_texts.as_row())
    assert "secret" not in model_card(with_texts)


def test_names_cannot_break_the_card():
    odd = 'evil: "x"\n---\n| a | `b` <script>'
    text = model_card(report(lineage=Lineage(odd, odd, odd), settings={odd: odd, "loss": odd}, notes=(odd,)))
    assert ModelCard(text).data.base_model == " ".join(odd.split())
    assert text.count("\n---\n") == 1 and "<script>" not in text.split("\n---\n")[1]


def test_sentence_transformers_opens_the_artifact_with_its_card(sealed):
    assert SentenceTransformer(str(sealed), device="cpu").get_embedding_dimension() == 32


def test_a_meter_tells_steps_loss_metric_and_time_left():
    now = iter(np.arange(0.0, 100.0, 2.0).tolist())
    shown: list[str] = []
    meter = Meter(10, show=lambda each: shown.append(each.line()), clock=lambda: next(now))
    assert meter.line() == "step 0/10"
    meter(1)
    report_loss(meter, 0.5)
    report_loss(meter, 0.25)
    report_metric(meter, "ndcg@10", 0.8125)
    assert shown[-1] == "step 1/10  loss 0.375  ndcg@10 0.812  0:18 left"
    meter(1)
    assert meter.seconds_left == pytest.approx(16.0)


def test_steps_of_an_earlier_run_do_not_make_the_rest_look_fast():
    now = iter([0.0, 1.0, 11.0, 21.0])
    meter = Meter(100, clock=lambda: next(now))
    meter(50)
    assert meter.seconds_left is None
    meter(1)
    assert meter.seconds_left == pytest.approx(49 * 10)
    assert clock_time(490) == "8:10" and clock_time(3661) == "1:01:01"


def test_a_plain_progress_is_told_steps_only():
    steps: list[int] = []
    report_loss(steps.append, 1.0)
    report_metric(None, "mrr", 1.0)
    assert steps == [] and Meter(0).seconds_left is None


def test_settings_of_a_proof_are_checked():
    with pytest.raises(UsageError, match="known_items is -1"):
        ProofSettings(known_items=-1)

"""The guide to losses cannot lie: its sections are the registry, its Python runs, and its options exist."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

from paths import DOCS

from llama_index_embed_plus.training.losses.catalogue import LOSSES, LossOptions

GUIDE = (DOCS / "losses.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_every_loss_has_its_section_as_the_registry_has_it():
    sections = re.findall(
        r"^### `(\w+)`\n\n(.+?)\n\n```text\n(.+?)```\n\n- Rows: (.+?)\n- Source: (.+?)\n\n", GUIDE, flags=re.S | re.M
    )
    found = [[" ".join(part.split()) for part in section] for section in sections]
    assert [[name, formula, source, rows] for name, _, formula, rows, source in found] == [
        [spec.name, spec.formula, spec.source, f"{spec.shape}: {spec.needs}"] for spec in LOSSES.values()
    ]
    assert all(when.endswith(".") for _, when, *_ in found)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ranking ['dim_weights', 'dims', 'gather_across_devices'")
    assert lines[1] == "nli 2 premises, 1 rows left out"
    assert lines[2:4] == [
        "negatives_0 ['anchor', 'positive'] 1", "negatives_1 ['anchor', 'positive', 'negative_1'] 1",
    ]  # fmt: skip
    assert lines[4] == "the loss 'cosent' wants scored pairs or judged pairs, the data is nli"
    assert lines[5] == "['anchor', 'positive', 'negative_1', 'label'] [0.4, 1.0, 1.6]"
    assert lines[6:] == ["True", "6 ['damaged', 'text']", "question 0 0.2", "question 0.2"]


def test_the_options_that_the_guide_names_exist():
    known = {field.name for field in fields(LossOptions)}
    named = {"temperature", "scale", "margin", "dims", "dim_weights", "tokens_at_once"}
    assert named <= known and all(f"`{name}" in GUIDE for name in named)
    assert '{"teacher": FOLDER}' in GUIDE and "teacher" in known


def test_the_guide_says_where_accumulation_and_unsupervised_training_do_not_help():
    assert "Gradient accumulation does not give" in GUIDE
    assert "**Retrieval**: hardly" in GUIDE and "**Similarity** of texts of one kind: yes" in GUIDE

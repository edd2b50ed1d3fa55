"""The guide to proofs cannot lie: its Python runs from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys

from paths import DOCS

GUIDE = (DOCS / "proof.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "True"
    assert re.match(r"1 of \d+ training examples give held-out queries away", lines[1])
    assert [line.split()[0] for line in lines[2:5]] == ["ndcg@10", "mrr", "recall@10"]
    assert lines[5].split()[0] in ("True", "False")  # which one depends on this Python's own documentation
    assert lines[6] == "True cross-fitted:"
    assert lines[7].startswith("known items True ndcg@10")
    assert [line.split()[0] for line in lines[8:10]] == ["0.5", "1.0"]
    assert lines[10] == "None"


def test_the_numbers_in_the_guide_are_the_defaults():
    from llama_index_embed_plus.training.data.splits import SAME
    from llama_index_embed_plus.training.proof.proof import ProofSettings

    defaults = ProofSettings()
    assert (defaults.margin, defaults.forgetting_margin, defaults.min_queries) == (0, 0.02, 20)
    assert f"{defaults.known_items} passages" in GUIDE and f"have a cosine of at least {SAME}" in GUIDE

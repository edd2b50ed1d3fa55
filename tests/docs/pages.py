"""Run a page from top to bottom: its files are written, its commands and its Python run, and what it shows is printed.

- ```` ```csv title="name.csv" ```` (any language but python and console, with a title) is a file of the reader's.
- ```` ```python ```` runs in a process of its own; the blocks of a page see the same folder, not the same names.
- ```` ```console ````: each line after `$ ` is a command, with `export NAME=value` for what follows; the other lines
  are what it prints, numbers and widths apart, in this order; `...` stands for any text. Installations are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", flags=re.S | re.M)
NOT_RUN = ("pip ", "docker ", "git ", "make ")


def run_page(page: Path, folder: Path, *, model: Path, skip: tuple[str, ...] = (), **environment: str) -> str:
    """Run it in the folder, where the name all-MiniLM-L6-v2 leads to `model`; returns all that it printed."""
    (folder / "all-MiniLM-L6-v2").symlink_to(model)  # an ONNX build: a block opens it in a second, and not in ten
    tools = folder / ".bin"
    tools.mkdir(exist_ok=True)
    for name, code in (("embed-plus", "from llama_index_embed_plus.cli import main; main()"), ("python", None)):
        call = f"{shlex.quote(sys.executable)} " + (f"-c {shlex.quote(code)} " if code else "")
        (tools / name).write_text(f'#!/bin/sh\nexec {call}"$@"\n')
        (tools / name).chmod(0o755)
    environ = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "120"} | environment
    printed = []
    for _, language, info, body in FENCE.findall(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', info)
        if language == "python" and not title:
            printed.append(_done([sys.executable, "-c", body], folder, environ, body))
        elif language == "console":
            printed += _console(body, folder, environ, skip)
        elif title:
            (folder / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / title[1]).write_text(body, encoding="utf-8")
    return "\n".join(printed)


def _console(body: str, folder: Path, environ: dict[str, str], skip: tuple[str, ...]) -> list[str]:
    printed = []
    for part in re.split(r"^\$ ", body.replace("\\\n", " "), flags=re.M)[1:]:
        command, _, shown = part.partition("\n")
        command = re.sub(r"\s+# .*", "", command).strip()
        if match := re.fullmatch(r"export (\w+)=(\S*)", command):
            environ[match[1]] = match[2]
        elif not command.startswith(NOT_RUN + skip):
            printed.append(_done(["sh", "-c", command], folder, environ, command))
            _check(shown, printed[-1], command)
    return printed


def _done(arguments: list[str], folder: Path, environ: dict[str, str], what: str) -> str:
    done = subprocess.run(
        arguments, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{what}\n{done.stdout}"
    return done.stdout


def _check(shown: str, printed: str, command: str) -> None:
    found, position = _plain(printed), 0
    for line in filter(None, map(str.strip, shown.splitlines())):
        pattern = ".*?".join(re.escape(part) for part in _plain(line).split("..."))
        match = re.compile(pattern).search(found, position)
        assert match, f"{command}\ndoes not print\n{line}\nbut\n{printed}"
        position = match.end()


def _plain(text: str) -> str:
    return re.sub(r"\d+([.,:]\d+)*", "#", re.sub(r"\s+", " ", text))

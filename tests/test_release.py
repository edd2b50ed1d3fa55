"""What a release is built and served with: versions that were tested, and files whose hashes are known."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

import llama_index_embed_plus
import qdrant_tools

ROOT = Path(__file__).parents[1]
LOCKS = [ROOT / "requirements" / name for name in ("serving.txt", "build.txt")]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\]+)? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def name_of(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def pins(lock):
    return {name_of(match[1]): match[2] for line in lock.read_text().splitlines() if (match := PIN.match(line))}


def versions_tested():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    return {name_of(line.partition("==")[0]): line.partition("==")[2] for line in lines if line}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_locked_package_has_one_version_and_the_hashes_of_its_files(lock):
    lines = lock.read_text().splitlines()
    starts = [number for number, line in enumerate(lines) if PIN.match(line)]
    assert starts[0] == 0
    for start, end in zip(starts, [*starts[1:], len(lines)]):
        hashes = lines[start + 1 : end]
        assert hashes and all(HASH.match(line) for line in hashes), lines[start]
        # every line but the last one of a package goes on
        assert [line.endswith("\\") for line in hashes] == [*[True] * (len(hashes) - 1), False]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_the_versions_that_are_tested(lock):
    versions = versions_tested()
    assert {name: version for name, version in pins(lock).items() if versions.get(name, version) != version} == {}


def test_serving_is_locked_with_all_that_the_project_needs_and_without_torch():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {name_of(re.split(r"[\[<>=!~ ]", requirement)[0]) for requirement in project["dependencies"]}
    assert needed <= set(pins(LOCKS[0]))
    assert "torch" not in pins(LOCKS[0])


def test_the_server_of_compose_listens_on_this_machine_only():
    ports = re.findall(r'"([^"]+:\d+)"', (ROOT / "compose.yaml").read_text())
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_both_packages_say_the_version_that_is_released():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert llama_index_embed_plus.__version__ == qdrant_tools.__version__ == version
    for package in (llama_index_embed_plus, qdrant_tools):
        assert (Path(package.__file__).parent / "py.typed").is_file()


@pytest.fixture(scope="module")
def page_of():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page_of


def test_on_the_index_no_link_is_relative(page_of):
    readme = (ROOT / "README.md").read_text()
    page = page_of(readme, None)
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links and all(link.startswith(("http", "#")) for link in links)
    assert "quality" in page and "docs/pictures" not in page
    assert re.findall(r"^```python\n.*?^```", page, flags=re.S | re.M) == re.findall(
        r"^```python\n.*?^```", readme, flags=re.S | re.M
    )


def test_with_a_public_home_links_and_pictures_lead_there(page_of):
    text = "![a picture](docs/a.png) and [a page](docs/b.md#part), [elsewhere](https://x.example/y)"
    assert page_of(text, "https://home.example/p/") == (
        "![a picture](https://home.example/p/raw/main/docs/a.png) and "
        "[a page](https://home.example/p/blob/main/docs/b.md#part), [elsewhere](https://x.example/y)"
    )


def test_the_source_distribution_holds_every_file_that_make_and_the_tests_read():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    included = set(hatch["build"]["targets"]["sdist"]["include"]) | {"pyproject.toml"}  # hatchling adds that one
    assert [name for name in included if not (ROOT / name).exists()] == []
    tests = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    read = {name for text in tests for name in re.findall(r'\bROOT / "([\w.-]+)"', text)}
    assert {"Dockerfile", "compose.yaml", ".github"} < read
    assert read <= included

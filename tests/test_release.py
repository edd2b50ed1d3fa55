"""What a release is built and served with: versions that were tested, and files whose hashes are known."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

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

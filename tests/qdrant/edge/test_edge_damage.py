"""What damage does to a collection whose process was killed: an error, or nothing at all; never other content.

The folder holds an indexed segment, a segment that takes writes, and operations that are only in the log. It is copied
while it is open, which is what a kill leaves. Real kills are in `test_edge_crash.py`.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import time
from contextlib import closing

import pytest
from qdrant_client import models

from qdrant_tools import connect
from qdrant_tools.edge.integrity import acknowledged
from qdrant_tools.edge.integrity.wal import crc32c, open_segments, segment_end
from qdrant_tools.edge.storage.child import Limits, run_worker
from qdrant_tools.edge.storage.files import copy_folder
from qdrant_tools.errors import DamagedCollectionError

CASES = int(os.environ.get("DAMAGE_CASES", "40"))
SECONDS = 30  # what an opening may take here: an honest one takes less than one


def points(ids, seed=0):
    r = random.Random(seed)
    payload = {"i": 0, "t": "some text"}
    return [models.PointStruct(id=i, vector=[r.random() for _ in range(16)], payload={**payload, "i": i}) for i in ids]


def written(folder, *, tail=True):
    """A collection with 600 indexed points, 200 flushed ones outside the index, and writes after the last flush."""
    client = connect(folder)
    settings = models.OptimizersConfigDiff(indexing_threshold=10)
    client.create_collection("docs", models.VectorParams(size=16, distance="Cosine"), optimizers_config=settings)
    client.create_payload_index("docs", "i", "integer")
    client.upload_points("docs", points(range(600)))
    assert client.get_collection("docs").indexed_vectors_count == 600
    client.upsert("docs", points(range(2000, 2200)))
    client.flush("docs")
    if tail:
        client.upsert("docs", points(range(3000, 3100)))
        client.delete("docs", [1, 2, 3, 2001])
        client.set_payload("docs", {"z": 1}, [5, 2005, 3005])
    return client


def state(client):
    records, _ = client.scroll("docs", limit=100_000, with_vectors=True)
    return {r.id: (r.vector, r.payload) for r in records}


@pytest.fixture(scope="module", params=["tail", "no tail"])
def killed(request, tmp_path_factory):
    """A folder as a kill leaves it, and what was acknowledged."""
    folder = tmp_path_factory.mktemp("killed")
    client = written(folder / "live", tail=request.param == "tail")
    copy_folder(folder / "live", folder / "image")
    expected = state(client)
    client.close()
    return folder / "image", expected


def damage(path, kind, r):
    """Flip a bit, cut, remove or zero at a random place that holds something; False if there is none."""
    content = bytearray(path.read_bytes())
    filled = [at for at in range(0, len(content), 512) if any(content[at : at + 512])]
    if kind == "remove":
        path.unlink()
    elif not filled:
        return False
    elif kind == "cut":
        os.truncate(path, r.randrange(min(filled[-1] + 512, len(content))))
    else:
        at = r.choice(filled)
        if kind == "zero":
            content[at : at + 512] = bytes(len(content[at : at + 512]))
        else:
            place = r.choice([i for i in range(at, min(at + 512, len(content))) if content[i]])
            content[place] ^= 1 << r.randrange(8)
        path.write_bytes(bytes(content))
    return True


def outcome(folder, expected):
    """What a user sees: 'equal', 'error', or the difference."""
    start = time.monotonic()
    try:
        with closing(connect(folder)) as client:
            points = state(client)
    except DamagedCollectionError:
        points = None
    assert time.monotonic() - start < SECONDS
    if points is None:
        return "error"
    return "equal" if points == expected else f"silent: {len(points)} points, {len(expected)} expected"


def test_no_damage_after_a_kill_is_silent(killed, tmp_path):
    image, expected = killed
    files = [path.relative_to(image) for path in sorted(image.rglob("collections/*/**/*")) if path.is_file()]
    r = random.Random(int(os.environ.get("SEED", "7")))
    outcomes = []
    for number in range(CASES):
        file, kind = r.choice(files), r.choice(["flip", "flip", "cut", "remove", "zero"])
        folder = tmp_path / str(number)
        copy_folder(image, folder)
        if damage(folder / file, kind, r):
            outcomes.append((outcome(folder, expected), kind, str(file)))
        shutil.rmtree(folder)
    assert [case for case in outcomes if case[0] not in ("equal", "error")] == []
    assert sum(kind == "error" for kind, *_ in outcomes) > CASES // 2


def test_a_killed_folder_opens_with_everything_again_and_again(killed, tmp_path):
    image, expected = killed
    copy_folder(image, tmp_path / "copy")
    for _ in range(3):
        assert outcome(tmp_path / "copy", expected) == "equal"


def log_of(folder):
    return next(folder.rglob("wal"))


@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_log_that_was_cut_or_changed_is_an_error_that_names_it(killed, tmp_path, part):
    image, expected = killed
    for change in ("cut", "flip"):
        folder = tmp_path / change
        copy_folder(image, folder)
        log = open_segments(log_of(folder))[0]
        at = int(segment_end(log).bytes * part)
        if change == "cut":
            os.truncate(log, at)
        else:
            content = bytearray(log.read_bytes())
            content[at] ^= 1
            log.write_bytes(bytes(content))
        with closing(connect(folder)) as client, pytest.raises(DamagedCollectionError, match=f"log.*{log.name}"):
            client.count("docs")


def test_an_operation_that_was_being_written_when_the_process_was_killed_is_no_damage(killed, tmp_path):
    image, expected = killed
    copy_folder(image, tmp_path / "copy")
    log = open_segments(log_of(tmp_path / "copy"))[0]
    with open(log, "r+b") as file:
        file.seek(segment_end(log).bytes)
        file.write(struct.pack("<Q", 500) + b"half of an operation")
    assert outcome(tmp_path / "copy", expected) == "equal"
    with closing(connect(tmp_path / "copy")) as client:
        client.upsert("docs", points([9000]))
    assert outcome(tmp_path / "copy", {**expected, 9000: None}).startswith("silent")  # one point more


def test_after_a_power_failure_a_log_that_ends_earlier_is_no_damage(tmp_path, monkeypatch):
    client = written(tmp_path / "live", tail=False)
    flushed = state(client)
    end = segment_end(open_segments(log_of(tmp_path / "live"))[0]).bytes
    client.upsert("docs", points(range(5000, 5010)))
    copy_folder(tmp_path / "live", tmp_path / "copy")
    client.close()
    log = open_segments(log_of(tmp_path / "copy"))[0]
    with open(log, "r+b") as file:
        file.seek(end)
        file.write(bytes(os.path.getsize(log) - end))
    for boot in ("same", "other"):
        folder = tmp_path / boot
        copy_folder(tmp_path / "copy", folder)
        if boot == "other":
            monkeypatch.setattr(acknowledged, "boot_id", lambda: b"another boot....")
            with closing(connect(folder)) as client:
                assert state(client).keys() >= flushed.keys()
        else:
            with closing(connect(folder)) as client, pytest.raises(DamagedCollectionError, match="cut or changed"):
                client.count("docs")


def test_a_log_of_several_segments_is_followed(tmp_path):
    client = connect(tmp_path / "live")
    client.create_collection("docs", models.VectorParams(size=4, distance="Dot"))
    for i in range(10):
        payload = {"t": random.Random(i).randbytes(4 << 20).hex()}
        client.upsert("docs", [models.PointStruct(id=i, vector=[1, 0, 0, 0], payload=payload)])
    copy_folder(tmp_path / "live", tmp_path / "image")
    client.close()
    names = sorted(path.name for path in log_of(tmp_path / "image").iterdir())
    assert any(name.startswith("closed-") for name in names)
    for number, name in enumerate([None, *(name for name in names if name.startswith("closed-"))]):
        folder = tmp_path / str(number)
        copy_folder(tmp_path / "image", folder)
        if name is not None:
            content = bytearray((log_of(folder) / name).read_bytes())
            content[len(content) // 2] ^= 1
            (log_of(folder) / name).write_bytes(bytes(content))
        with closing(connect(folder)) as client:
            if name is None:
                assert client.count("docs").count == 10
            else:
                with pytest.raises(DamagedCollectionError, match="log"):
                    client.count("docs")


def test_random_writes_and_a_kill_at_any_moment_raise_no_alarm(tmp_path):
    r = random.Random(int(os.environ.get("SEED", "11")))
    client = written(tmp_path / "live")
    ids = list(range(10, 600)) + list(range(2010, 2200))
    for step in range(int(os.environ.get("DAMAGE_STEPS", "12"))):
        for _ in range(r.randrange(1, 6)):
            some = r.sample(ids, 5)
            kind = r.randrange(7)
            if kind == 0:
                client.upsert("docs", points(range(10_000 + 10 * step, 10_010 + 10 * step), seed=step))
            elif kind == 1:
                client.upsert("docs", points(some, seed=step))
            elif kind == 2:
                client.delete("docs", r.sample(range(3000, 3100), 3))
            elif kind == 3:
                below = models.Range(lt=r.randrange(300))
                selected = models.Filter(must=[models.FieldCondition(key="i", range=below)])
                client.set_payload("docs", {"z": "y" * r.randrange(2000)}, selected)
            elif kind == 4:
                client.update_vectors("docs", [models.PointVectors(id=some[0], vector=[r.random() for _ in range(16)])])
            elif kind == 5:
                client.flush("docs")
            else:
                client.create_payload_index("docs", "z", "keyword")
                client.delete_payload_index("docs", "z")
        copy_folder(tmp_path / "live", tmp_path / "image")
        assert outcome(tmp_path / "image", state(client)) == "equal"
        shutil.rmtree(tmp_path / "image")
    client.close()


def copy_without_notes(image, folder, name="", position=0):
    """A copy without checksums and log position; one byte of every file of this name is flipped."""
    copy_folder(image, folder)
    for note in ("seal.json", "progress.bin"):
        for path in folder.rglob(note):
            path.unlink()
    for path in folder.rglob(name) if name else ():
        content = bytearray(path.read_bytes())
        if position < len(content):
            content[position] ^= 0xFF
            path.write_bytes(bytes(content))


@pytest.mark.parametrize("position", [0, 3, 4, 5, 6, 7])
def test_damage_that_makes_the_engine_allocate_without_end_is_stopped(killed, tmp_path, monkeypatch, position):
    image, _ = killed
    copy_without_notes(image, tmp_path / "copy", "deleted/status.dat", position)
    shard = next((tmp_path / "copy").rglob("shard"))
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, task, content: Limits(256 << 20, 10)))
    outcome = run_worker("open", shard)
    assert outcome.code == 0 or outcome.reason


def test_a_child_has_limits_far_above_what_it_needs(killed, tmp_path, monkeypatch):
    image, _ = killed
    copy_folder(image, tmp_path / "copy")
    shard = next((tmp_path / "copy").rglob("shard"))
    assert run_worker("open", shard).code == 0
    small = Limits(memory=2 << 20, seconds=60)
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, task, content: small))
    assert "GB of memory" in run_worker("open", shard).reason
    monkeypatch.setattr(Limits, "of", classmethod(lambda cls, task, content: Limits(1 << 30, 0.001)))
    assert "had not ended" in run_worker("open", shard).reason


def test_notes_of_an_earlier_release_and_none_at_all_open(killed, tmp_path):
    image, expected = killed
    copy_without_notes(image, tmp_path / "bare")
    assert outcome(tmp_path / "bare", expected) == "equal"
    (checksums,) = (tmp_path / "bare").rglob("seal.json")
    files = json.loads(checksums.read_text())["files"]
    rows = {name: {"size": row["size"], "checksum": None} for name, row in files.items()}
    checksums.write_text(json.dumps(rows))
    assert outcome(tmp_path / "bare", expected) == "equal"


def test_checksums_of_long_and_short_data_are_those_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32)) * 200) == crc32c_slowly(bytes(range(32)) * 200)


def crc32c_slowly(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF

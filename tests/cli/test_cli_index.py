"""`embed-plus index` brings a collection in step with files, and `passages` shows and deletes what it holds."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from command_line import error_line

from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.sources.in_step import remembered

WORDS = Path(__file__).read_text().split()


def paragraphs(seed: int, count: int) -> list[str]:
    """Paragraphs of some 40 words, none of which is another one."""
    draw = random.Random(seed)
    return [f"Paragraph {seed}-{i}. " + " ".join(draw.choices(WORDS, k=40)) + "." for i in range(count)]


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(texts) + "\n")


@pytest.fixture
def notes(tmp_path) -> Path:
    for number in range(3):
        write(tmp_path / "notes" / f"n{number}.txt", paragraphs(number, 6))
    return tmp_path / "notes"


def stored(location: Path, name: str = "docs") -> dict[str, tuple]:
    """Passage id -> everything that a point holds."""
    with closing(connect(location, create=False)) as client:
        collection = CollectionManager(client).open(name)
        pages = collection.gateway.pages(batch_size=100, with_vectors=True)
        return {r.payload["passage_id"]: (str(r.id), r.payload, tuple(r.vector)) for page in pages for r in page}


def require_equal(location: Path, other: Path) -> None:
    """That two collections hold the same, but for the last bits that a batch of another size changes."""
    here, there = stored(location), stored(other)
    assert {name: point[:2] for name, point in here.items()} == {name: point[:2] for name, point in there.items()}
    for name, (_, _, vector) in here.items():
        assert vector == pytest.approx(there[name][2], abs=1e-5)


def index(run, *arguments: object) -> dict:
    code, out, err = run("index", "docs", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def counts(row: dict) -> tuple[int, ...]:
    return tuple(row[name] for name in ("added", "updated", "refreshed", "unchanged", "removed"))


def test_what_a_file_has_no_more_goes_and_files_that_are_gone_go_on_request(run, notes, tmp_path):
    index(run, notes)
    write(notes / "n1.txt", ["Short now."])
    (notes / "n2.txt").unlink()
    code, out, _ = run("index", "docs", notes)
    assert code == 0 and "passages of files or rows that are gone: " in out and "--delete-missing removes them" in out
    files = {payload["metadata"]["file_name"] for _, payload, _ in stored(tmp_path / "embed-plus-data").values()}
    assert files == {"n0.txt", "n1.txt", "n2.txt"}
    row = index(run, notes, "--delete-missing")
    assert row["removed_of_gone_files"] > 0 and row["left_of_gone_files"] == 0
    index(run, notes, "--location", "anew")
    require_equal(tmp_path / "embed-plus-data", tmp_path / "anew")
    code, out, _ = run("passages", "list", "docs", "--file", "n1.txt", "--json")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["Short now."]


def test_a_dry_run_says_what_a_run_then_does_and_writes_nothing(run, notes, tmp_path):
    dry = index(run, notes, "--dry-run")
    assert dry["dry_run"] and [each.name for each in tmp_path.iterdir()] == ["notes"]
    assert counts(dry) == counts(index(run, notes))
    write(notes / "n1.txt", ["Short now."])
    (notes / "n2.txt").unlink()
    before = stored(tmp_path / "embed-plus-data")
    dry = index(run, notes, "--dry-run", "--delete-missing")
    assert stored(tmp_path / "embed-plus-data") == before
    row = index(run, notes, "--delete-missing")
    assert dry | {"dry_run": False, "search": row["search"]} == row and row["removed"] > 0


def test_two_folders_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    write(tmp_path / "a" / "docs" / "README.md", ["Alpha project keeps bees."])
    write(tmp_path / "b" / "docs" / "README.md", ["Beta project keeps whales."])
    index(run, "a/docs")
    code, _, err = run("index", "docs", "b/docs")
    assert code == 1 and "--source NAME" in error_line(err) and "a/docs" in error_line(err)
    assert counts(index(run, "b/docs", "--source", "beta"))[0] == 1
    ids = sorted(stored(tmp_path / "embed-plus-data"))
    assert [each.partition("#")[0] for each in ids] == ["beta/README.md", "docs/README.md"]
    (tmp_path / "a" / "docs").rename(tmp_path / "moved")
    row = index(run, "moved", "--source", "docs", "--moved", "--delete-missing")
    assert counts(row) == (0, 0, 0, 1, 0), "it is the same source elsewhere, and beta is another one"


def test_one_file_of_a_folder_is_a_part_of_its_source(run, notes):
    index(run, notes)
    write(notes / "n1.txt", ["Short now."])
    row = index(run, notes / "n1.txt", "--delete-missing")
    assert row["source"] == "notes" and row["added"] == 1 and row["removed_of_gone_files"] == 0
    assert counts(index(run, notes))[0::3] == (0, index(run, notes)["unchanged"])


def test_files_that_cannot_be_read_are_counted_by_reason_and_keep_their_passages(run, notes):
    index(run, notes)
    (notes / "n1.txt").write_bytes(b"\x00\xff\xfe binary \x00" * 100)
    (notes / "picture.png").write_bytes(b"\x89PNG")
    row = index(run, notes, "--delete-missing")
    assert row["removed"] == 0 and row["kept_of_unread_files"] > 0
    assert {Path(each["path"]).name for each in row["skipped"]} == {"n1.txt", "picture.png"}
    code, out, _ = run("index", "docs", notes, "--strict")
    assert code == 1 and "2 of 4 files skipped: 2 no reader (.txt, .png)" in out


def test_a_folder_of_which_nothing_can_be_read_is_an_error_with_the_reasons(run, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"\x89PNG")
    code, _, err = run("index", "docs", "pictures", "--delete-missing")
    assert code == 1 and "pictures holds no text to index: 1 skipped, such as pictures/a.png (no reader)" in err
    assert [each.name for each in tmp_path.iterdir()] == ["pictures"]


def test_an_empty_folder_is_taken_for_a_disk_that_is_away(run, notes, tmp_path):
    index(run, notes)
    for file in notes.iterdir():
        file.unlink()
    before = stored(tmp_path / "embed-plus-data")
    code, _, err = run("index", "docs", notes, "--delete-missing")
    assert code == 1 and "holds no text" in error_line(err) and stored(tmp_path / "embed-plus-data") == before


def test_an_emptied_file_loses_its_passages(run, notes):
    index(run, notes)
    (notes / "n1.txt").write_text("")
    assert index(run, notes)["removed_of_changed_files"] > 0


def test_a_collection_within_the_folder_is_no_document_of_it(run, notes, monkeypatch):
    index(run, notes, "--location", notes / "data")
    assert index(run, notes, "--location", notes / "data", "--delete-missing")["added"] == 0


def test_a_folder_that_is_cut_otherwise_is_cut_anew_and_that_is_said(run, notes, tmp_path):
    index(run, notes)
    code, out, _ = run("index", "docs", notes, "--chunk-tokens", 64)
    assert code == 0 and "cut otherwise than the last time: max_tokens None -> 64" in out
    index(run, notes, "--chunk-tokens", 64, "--location", "anew")
    require_equal(tmp_path / "embed-plus-data", tmp_path / "anew")
    code, out, _ = run("index", "docs", notes, "--chunk-tokens", 64)
    assert "nothing to do" in out and "otherwise" not in out


def test_an_edit_costs_its_neighbourhood_only(run, tmp_path, monkeypatch):
    from llama_index_embed_plus.encoders.text_encoder import TextEncoder

    encoded: list[str] = []
    encode = TextEncoder.encode_passages
    monkeypatch.setattr(
        TextEncoder, "encode_passages", lambda self, texts: (encoded.extend(texts), encode(self, texts))[1]
    )
    texts = paragraphs(1, 100)
    write(tmp_path / "notes" / "long.txt", texts)
    first = index(run, "notes", "--chunk-tokens", 128, "--min-tokens", 24)
    assert first["added"] == len(encoded) >= 60
    encoded.clear()
    write(tmp_path / "notes" / "long.txt", [*texts[:50], "A new paragraph about herons.", *texts[50:]])
    row = index(run, "notes", "--chunk-tokens", 128, "--min-tokens", 24)
    assert len(encoded) == row["added"] <= 8 and row["removed"] <= 8
    assert row["refreshed"] + row["unchanged"] == row["passages"] - row["added"]


def test_rows_named_after_their_file_go_with_it_and_those_with_ids_on_request(run, tmp_path):
    notes, rows = tmp_path / "notes", tmp_path / "notes" / "rows.csv"
    write(notes / "a.txt", paragraphs(0, 2))

    def removed(*lines: str, more: tuple[str, ...] = ()) -> tuple[int, int, int]:
        write(rows, ["\n".join(lines)])
        row = index(run, notes, *more)
        return row["removed_of_changed_files"], row["removed_of_gone_files"], row["left_of_gone_files"]

    assert removed("text,year", "Herons wade.,1", "Owls hunt.,2", "Bees hum.,3") == (0, 0, 0)
    assert removed("text,year", "Herons wade.,1", "Owls hunt.,2", ",3") == (1, 0, 0), "a row that was emptied"
    assert removed("text,year", "Herons wade.,1", '"Owls hunt.') == (0, 0, 0), "a broken table: nothing is certain"
    assert removed("text,year", "Herons wade.,1", "Owls hunt at night.,2") == (1, 0, 0)
    assert removed("name,says", "r1,Herons wade.") == (2, 0, 0), "rows before, a table now"
    assert removed("id,text", "r1,Herons wade.", "r2,Owls hunt.") == (1, 0, 0)
    assert removed("id,text", "r2,Owls hunt.") == (0, 0, 1), "a file of new rows only"
    assert removed("id,text", "r2,Owls hunt.", more=("--delete-missing",)) == (0, 1, 0)
    assert removed("text", "Herons wade.") == (0, 0, 1)
    assert removed(" ") == (1, 0, 1), "an emptied file"


def test_rows_of_an_earlier_version_are_unchanged(run, tmp_path):
    """As its code stored them: by `index_passages`, without an origin."""
    from llama_index_embed_plus.encoders.open import open_encoder
    from qdrant_tools.records import Passage

    rows = [{"id": f"r{i}", "text": f"row number {i}", "metadata": {"x": i}} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with closing(connect(tmp_path / "embed-plus-data")) as client:
        encoder = open_encoder("all-MiniLM-L6-v2")
        collection = CollectionManager(client).ensure("docs", encoder)
        collection.index([Passage(row["id"], row["text"], row["metadata"]) for row in rows])
        collection.index([Passage("old.txt#0", "Old words.", {"source": "old.txt", "part": 0})])
    row = index(run, "rows.jsonl", "--whole")
    assert counts(row)[:2] == (0, 0) and row["refreshed"] + row["unchanged"] == 5
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows[:3])))
    assert counts(index(run, "rows.jsonl", "--whole"))[-1] == 0
    assert index(run, "rows.jsonl", "--whole", "--delete-missing")["removed_of_gone_files"] == 2
    write(tmp_path / "old" / "old.txt", ["Old words."])
    assert index(run, "old")["removed_of_changed_files"] == 1


KILLED = "from llama_index_embed_plus.cli import main; main()"


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_at_any_moment_is_made_good_by_the_next_run(run, tmp_path, seed):
    draw = random.Random(seed)
    for number in range(40):
        write(tmp_path / "notes" / f"n{number}.txt", paragraphs(number, 12))
    index(run, "notes", "--chunk-tokens", 64)
    for number in range(0, 40, 2):
        write(tmp_path / "notes" / f"n{number}.txt", ["New beginning.", *paragraphs(number, 12)[3:]])
    for number in range(30, 40):
        (tmp_path / "notes" / f"n{number}.txt").unlink()
    before = stored(tmp_path / "embed-plus-data")
    command = [sys.executable, "-c", KILLED, "index", "docs", "notes", "--chunk-tokens", "64"]
    for _ in range(3):
        running = subprocess.Popen([*command, "--delete-missing"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(1.5, 6))
        running.send_signal(signal.SIGKILL)
        running.wait()
    half = stored(tmp_path / "embed-plus-data")
    kept = {f"notes/n{number}.txt" for number in range(1, 30, 2)}
    assert all(half[name] == point for name, point in before.items() if point[1]["origin"]["document"] in kept)
    index(run, "notes", "--chunk-tokens", 64, "--delete-missing")
    index(run, "notes", "--chunk-tokens", 64, "--location", "anew")
    require_equal(tmp_path / "embed-plus-data", tmp_path / "anew")


class Watching:
    """A process of `index --watch`, and the lines that it has printed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-c", KILLED, "index", "docs", "notes", "--watch", "--json"]
        self.out = folder / "out"
        with self.out.open("w") as out, (folder / "err").open("w") as err:
            self.process = subprocess.Popen([*command, *arguments], cwd=folder, stdout=out, stderr=err)

    def reports(self, count: int, seconds: float = 300) -> list[dict]:
        """The reports so far, once there are so many."""
        return self.until(lambda rows: len(rows) >= count, seconds)

    def until(self, enough, seconds: float = 300) -> list[dict]:
        deadline = time.monotonic() + seconds
        while True:
            rows = [json.loads(line) for line in self.out.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if enough(rows):
                return rows
            assert time.monotonic() < deadline and self.process.poll() is None, (
                rows,
                (self.out.parent / "err").read_text(),
            )
            time.sleep(0.2)


@pytest.fixture
def watching(tmp_path):
    started: list[Watching] = []

    def start(*arguments: str) -> Watching:
        started.append(Watching(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


def test_watching_follows_changes_deletions_and_a_burst_and_ends_by_ctrl_c(run, notes, tmp_path, watching):
    watch = watching()
    (first,) = watch.reports(1)
    assert first["added"] > 0
    write(notes / "n1.txt", ["Changed to a heron."])
    row = watch.reports(2)[-1]
    assert row["added"] == 1 and row["removed_of_changed_files"] > 0 and row["files"] == 1
    # the folder of collections is free between runs
    code, out, _ = run("search", "docs", "heron", "--json", "-k", 1)
    assert code == 0 and json.loads(out.splitlines()[0])["text"] == "Changed to a heron."
    (notes / "n2.txt").unlink()
    assert watch.reports(3)[-1]["removed_of_gone_files"] > 0
    for number in range(1000):
        write(notes / "many" / f"m{number}.txt", [f"Burst number {number}."])
    watch.until(lambda rows: sum(row["added"] for row in rows[3:]) == 1000, 600)
    (notes / "many").rename(tmp_path / "elsewhere")
    watch.until(lambda rows: sum(row["removed"] for row in rows[3:]) == 1000, 600)
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(300) == 0 and (tmp_path / "err").read_text().splitlines()[-1] == "stopped"
    row = index(run, notes, "--delete-missing")
    assert counts(row) == (0, 0, 0, row["unchanged"], 0)


def test_a_folder_that_vanishes_while_it_is_watched_is_waited_for_and_nothing_is_removed(
    run, notes, tmp_path, watching
):
    watch = watching()
    watch.reports(1)
    notes.rename(tmp_path / "away")
    deadline = time.monotonic() + 300
    while "waiting for it to come back" not in (tmp_path / "err").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    before = stored(tmp_path / "embed-plus-data")
    write(tmp_path / "away" / "new.txt", ["A heron came."])
    (tmp_path / "away").rename(notes)
    watch.until(lambda rows: rows[-1]["added"] == 1 and rows[-1]["removed"] == 0)
    watch.process.send_signal(signal.SIGINT)
    assert watch.process.wait(300) == 0
    assert (tmp_path / "err").read_text().count("is gone") == 1
    assert before.items() < stored(tmp_path / "embed-plus-data").items()


def test_passages_are_listed_shown_and_deleted(run, notes, tmp_path):
    index(run, notes)
    run("collection", "alias", "live", "docs")
    code, out, err = run("passages", "list", "live", "-k", 2)
    assert code == 0 and len(out.splitlines()) == 2 and "2 of " in err
    rows = [
        json.loads(line)
        for line in run("passages", "list", "live", "--document", "notes/n1.txt", "--json")[1].splitlines()
    ]
    assert [row["metadata"]["part"] for row in rows] == list(range(len(rows)))
    assert rows[0]["origin"] == {"source": "notes", "document": "notes/n1.txt", "file": "n1.txt"}
    code, out, _ = run("passages", "get", "live", rows[0]["id"], "--json")
    assert code == 0 and json.loads(out).items() <= rows[0].items()
    code, out, _ = run("passages", "get", "live", rows[0]["id"])
    assert out.splitlines()[0] == rows[0]["id"] and rows[0]["text"].splitlines()[0] in out
    code, _, err = run("passages", "get", "live", "nobody")
    assert code == 1 and "'nobody' is not in 'docs'" in error_line(err)
    total = len(stored(tmp_path / "embed-plus-data"))
    code, out, _ = run("passages", "delete", "live", "--file", "n1.txt", "--dry-run")
    assert code == 0 and out == f"docs: {len(rows)} passages would be deleted\n"
    assert run("passages", "delete", "live", "--file", "n1.txt")[0] == 2, "nobody is there to say yes"
    assert run("passages", "delete", "live", rows[0]["id"], "nobody", "--yes")[0] == 1
    assert len(stored(tmp_path / "embed-plus-data")) == total
    assert run("passages", "delete", "live", rows[0]["id"], "--yes")[0] == 0
    assert run("passages", "delete", "live", "--document", "notes/n1.txt", "--yes")[0] == 0
    assert len(stored(tmp_path / "embed-plus-data")) == total - len(rows)
    assert run("passages", "delete", "live", "--source", "notes", "--yes")[0] == 0
    assert stored(tmp_path / "embed-plus-data") == {}
    for arguments in ([], ["x", "--source", "notes"]):
        assert run("passages", "delete", "live", *arguments, "--yes")[0] == 2


def test_the_place_of_a_source_is_remembered_without_what_is_not_utf_8(run, tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xff") / "notes"
    write(folder / "a.txt", ["Herons."])
    index(run, folder)
    with closing(connect(tmp_path / "embed-plus-data", create=False)) as client:
        known = remembered(CollectionManager(client).open("docs"))
    assert known["notes"].place.endswith("f\\xff/notes")


def test_what_is_passed_over_and_other_encodings_are_told(run, tmp_path):
    (tmp_path / "kb" / ".git").mkdir(parents=True)
    (tmp_path / "kb" / "a.txt").write_bytes("Die Königin der Bienen überwintert im Stock.".encode("cp1252"))
    code, out, _ = run("index", "docs", "kb")
    assert code == 0 and "passed over: 1 hidden" in out
    row = index(run, tmp_path / "kb")
    assert row["left_out"] == {"hidden": 1} and row["encodings"] == {"cp1252": 1}


def test_pages_that_were_not_read_are_told(run, tmp_path):
    from fpdf import FPDF

    (tmp_path / "kb").mkdir()
    made = FPDF()
    made.set_font("helvetica", size=12)
    for text in ("Bees turn nectar into honey in the summer.", "", ""):
        made.add_page()
        made.multi_cell(0, text=text) if text else made.rect(10, 10, 90, 90)
    made.output(str(tmp_path / "kb" / "scan.pdf"))
    code, out, _ = run("index", "docs", "kb")
    assert code == 0 and "pages of PDFs that were not read: 2 without text; pictures need OCR" in out
    assert index(run, tmp_path / "kb")["unread_pages"] == {"without text": 2}
    assert "  pages      without text 2" in run("inspect", "kb")[1]


def test_what_would_be_forgotten_is_not_indexed(run, tmp_path):
    (tmp_path / "a.txt").write_text("Bees turn nectar into honey.")
    code, _, err = run("index", "docs", "a.txt", "--location", ":memory:")
    assert code == 2 and "--location :memory: keeps nothing when the command ends" in err and "give a folder" in err
    code, _, err = run("index", "docs", "a.txt", "--exact", "--hnsw-ef", 5)
    assert code == 2 and "give one of them" in err

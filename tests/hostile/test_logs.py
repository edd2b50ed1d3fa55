"""Logs that somebody else made: refused without being touched, or read as what they are; texts that must be gone."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from bounds import state_of
from logs import (
    DAMAGED,
    FOREIGN,
    NOON,
    ROWS,
    TEXT,
    changed,
    damage,
    honest,
    hot_journal,
    old,
    other_program,
    with_holes,
)

from qdrant_tools.errors import InputError, LogError, UsageError
from qdrant_tools.log import LoggedHit, LoggedSearch, RetrievalLog, dropped, hashed
from qdrant_tools.log.records import check_search

STATS, SHOW = ("log", "stats", "log.sqlite"), ("log", "show", "log.sqlite", "--json")
REDACT, EXPORT = ("log", "redact", "log.sqlite"), ("log", "export", "log.sqlite", "--out", "out.jsonl")
LIKE = ("log", "show", "no.sqlite")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "received" / "log.sqlite"


@pytest.fixture(autouse=True)
def received(tmp_path):
    (tmp_path / "received").mkdir()
    return tmp_path / "received"


def every_use(path):
    """The error of each way to use a log."""
    uses = {
        "read": lambda: RetrievalLog(path, read_only=True).stats(),
        "write": lambda: RetrievalLog(path).record("q", [], collection="", space=""),
        "redact": lambda: RetrievalLog(path).redact(dropped),
    }
    for use in uses.values():
        with pytest.raises(LogError) as refusal:
            use()
        yield str(refusal.value)


# -- what is no log


@pytest.mark.parametrize("statements", FOREIGN.values(), ids=FOREIGN)
def test_a_database_with_more_than_our_tables_is_refused_and_stays_as_it_is(path, received, statements):
    changed(honest(path), *statements)
    before = state_of(received)
    for message in every_use(path):
        assert message.startswith(f"cannot open the retrieval log {path}: ") and len(message) < 400
    assert state_of(received) == before


@pytest.mark.parametrize("mark", [0, 7])
@pytest.mark.parametrize("live", [False, True])
def test_the_database_of_another_program_is_never_written_to(path, received, mark, live):
    other_program(path, mark=mark)
    with closing(sqlite3.connect(path)) as db:
        if live:  # its newest rows are in its write-ahead log only
            db.execute("INSERT INTO searches VALUES ('2', 'newer')")
            db.commit()
        before, times = state_of(received), path.stat().st_mtime_ns
        for message in every_use(path):
            assert "cannot open" in message and "another name" in message and "drop" not in message
        assert state_of(received) == before and path.stat().st_mtime_ns == times


def test_tables_that_only_the_write_ahead_log_defines_are_looked_at_too(path, received):
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE notes (text TEXT)")
        before = state_of(received)
        for message in every_use(path):
            assert "the table 'notes'" in message
        assert state_of(received) == before


def test_a_trigger_that_came_with_the_write_ahead_log_is_found(path, tmp_path):
    honest(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(FOREIGN["a trigger that keeps texts"][0])
        db.execute(FOREIGN["a trigger that keeps texts"][1])
        copy = tmp_path / "copy.sqlite"
        copy.write_bytes(path.read_bytes())
        (tmp_path / "copy.sqlite-wal").write_bytes((path.parent / "log.sqlite-wal").read_bytes())
    for message in every_use(copy):
        assert "trigger 'keep'" in message or "table 'kept'" in message


# -- what lies beside a log


def test_a_journal_beside_a_log_deletes_nothing(path, received, outside, refused):
    hot_journal(honest(path), outside.secret)
    before = state_of(received)
    for use in (STATS, REDACT, SHOW):
        assert "-journal lies beside it" in refused(*use[:2], path, *use[3:], like=LIKE)
    assert state_of(received) == before


@pytest.mark.parametrize("ending", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "hard link", "link to nowhere", "folder", "pipe"])
def test_links_beside_a_log_are_refused(path, received, outside, tmp_path, ending, kind):
    beside = honest(path).with_name(f"{path.name}{ending}")
    if kind == "link":
        beside.symlink_to(outside.secret)
    elif kind == "hard link":
        (tmp_path / "mine").write_text("mine")
        os.link(tmp_path / "mine", beside)
    elif kind == "link to nowhere":
        beside.symlink_to(tmp_path / "new")
    elif kind == "folder":
        beside.mkdir()
    else:
        os.mkfifo(beside)
    before = state_of(received)
    for message in every_use(path):
        assert f"{beside} is a link, a folder or a device" in message
    assert state_of(received) == before and not (tmp_path / "new").exists()


def test_a_log_that_is_a_link_is_refused(path, received, tmp_path):
    honest(tmp_path / "mine.sqlite")
    path.symlink_to(tmp_path / "mine.sqlite")
    before = state_of(tmp_path)
    for message in every_use(path):
        assert f"is a link to '{tmp_path / 'mine.sqlite'}'" in message
    assert state_of(tmp_path) == before


def test_a_link_to_nowhere_makes_no_file_there(path, tmp_path):
    path.symlink_to(tmp_path / "new.sqlite")
    with pytest.raises(LogError, match="is a link"):
        RetrievalLog(path)
    assert not (tmp_path / "new.sqlite").exists()


def test_a_name_is_a_name_and_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x.sqlite?mode=memory", "a%00b?mode=ro#c", "ü ' \" ; --", "x' AS y; ATTACH 'z"):
        honest(name)
        with RetrievalLog(name, read_only=True) as log:
            assert len(log) == 3
        assert (tmp_path / name).is_file()
    with pytest.raises(LogError, match="NUL"):
        RetrievalLog("a\0b")


def test_pipes_devices_and_folders_are_no_logs(path, tmp_path, received):
    os.mkfifo(path)
    for odd in (path, "/dev/zero", "/dev/null", tmp_path):
        for message in every_use(odd):
            assert "cannot open" in message
    assert [entry.name for entry in received.iterdir()] == [path.name]


# -- rows and pages


READ = {name: sql for name, sql in ROWS.items() if "SQLite counts" not in name}


@pytest.mark.parametrize("sql", READ.values(), ids=READ)
def test_a_row_that_we_never_wrote_is_one_error_with_its_number(path, sql):
    changed(honest(path, 5), sql)
    with RetrievalLog(path, read_only=True) as log, pytest.raises(LogError, match="damaged .*, seq 2: ") as refusal:
        list(log.searches())
    assert len(str(refusal.value)) < 500 and TEXT not in str(refusal.value)


def test_whatever_is_damaged_is_one_error(path):
    content = honest(path, 120).read_bytes()
    with RetrievalLog(path) as log:
        log.record("x" * 9000, [], collection="", space="")
        logged = path.with_name("log.sqlite-wal").read_bytes()
    seed, refused = Random(5), 0
    for number in range(150):
        for entry in path.parent.iterdir():
            entry.unlink()
        path.write_bytes(damage(content, seed) if number % 4 else content)
        if not number % 4:
            path.with_name("log.sqlite-wal").write_bytes(damage(logged, seed))
        for use in (
            lambda: RetrievalLog(path, read_only=True).stats(),
            lambda: list(RetrievalLog(path, read_only=True).searches()),
            lambda: RetrievalLog(path).redact(dropped),
        ):
            try:
                use()
            except LogError as error:  # anything else fails the test
                refused += 1
                assert "log.sqlite" in str(error) and len(str(error)) < 500
    assert refused > 100


BY_READING_ONLY = ("a month 13", "no UTF-8", "redacted", "million", "thousand", "no list")


@pytest.mark.parametrize("name", [name for name in ROWS if not any(part in name for part in BY_READING_ONLY)])
def test_such_a_row_is_neither_counted_nor_called_redacted(path, name):
    changed(honest(path, 5), ROWS[name])
    with RetrievalLog(path) as log:
        for use in (log.stats, lambda: log.redact(dropped), lambda: log.forget(before=NOON)):
            with pytest.raises(LogError, match="damaged in .*, seq 2"):
                use()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM searches WHERE redacted = 1").fetchone() == (0,)


@pytest.mark.parametrize("make", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_line(path, make, refused):
    make(path)
    for use in (STATS, SHOW, REDACT, EXPORT):
        message = refused(*use[:2], path, *use[3:], like=LIKE)
        assert "log.sqlite" in message and len(message) < 500


def test_the_main_cases_are_one_line_through_the_commands(path, tmp_path, refused):
    for number, name in enumerate(["a million hits", "a time of megabytes", "a passage of megabytes"]):
        log = honest(tmp_path / f"{number}.sqlite", 5)
        changed(log, ROWS[name])
        assert "seq 2" in refused("log", "export", log, "--out", "out.jsonl", like=LIKE)
    for number, name in enumerate(["a view for a table", "a generated column", "a trigger that keeps texts"]):
        log = honest(tmp_path / f"foreign{number}.sqlite", 5)
        changed(log, *FOREIGN[name])
        assert "which a retrieval log has not" in refused("log", "stats", log, like=LIKE)
    assert not (tmp_path / "out.jsonl").exists()


# -- reading leaves a log as it is


def test_logs_of_every_version_are_read_as_they_are(path, received):
    for version in (1, 2):
        old(path, version)
        before = state_of(received)
        with RetrievalLog(path, read_only=True) as log:
            searches = list(log.searches())
            stats = log.stats()
            assert log.export_jsonl(received.parent / f"{version}.jsonl") == 4
            with pytest.raises(LogError, match="opened to be read only"):
                log.record("q", [], collection="", space="")
        assert state_of(received) == before
        assert [search.redacted for search in searches] == [False, True, True, False] and stats.redacted == 2
        assert all(search.feedback and search.hits for search in searches)
        with RetrievalLog(path) as log:  # brings it up to date
            assert list(log.searches()) == searches
        path.unlink()


def test_a_log_is_read_while_it_is_written_and_after_its_writer_was_killed(path):
    program = "from logs import *; log = RetrievalLog(sys.argv[1]); log.record('q', [], collection='', space='')"
    writer = f"import os, sys; {program}; print('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    with RetrievalLog(path, read_only=True) as log:
        assert len(log) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    content = path.read_bytes()
    with RetrievalLog(path, read_only=True) as log:
        assert [search.query for search in log.searches()] == ["q"]
    assert path.read_bytes() == content


GUEST = """
import os, sys
from qdrant_tools.log import RetrievalLog
from qdrant_tools.errors import LogError
import encodings.idna
if os.geteuid() == 0:
    os.setuid(65534)  # nothing is forbidden to root
with RetrievalLog(sys.argv[1], read_only=True) as log:
    print(len(log), log.stats().searches, len(list(log.searches())))
try:
    RetrievalLog(sys.argv[1]).record("q", [], collection="", space="")
except LogError as error:
    print(error)
"""


def test_a_log_in_a_folder_that_cannot_be_written_is_read(received):
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        path = honest(folder / "log.sqlite")
        path.chmod(0o444)
        folder.chmod(0o555)
        before = state_of(folder)
        done = subprocess.run([sys.executable, "-c", GUEST, str(path)], capture_output=True, text=True)
        assert state_of(folder) == before
        folder.chmod(0o755)
    lines = done.stdout.splitlines()
    assert lines[0] == "3 3 3" and lines[1].startswith("cannot "), done.stderr


# -- who may read it


def test_a_new_log_and_what_is_beside_it_are_its_owners(path, received):
    before = os.umask(0)
    try:
        with RetrievalLog(path) as log:
            log.record("q", [], collection="", space="")
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in received.iterdir()}
    finally:
        os.umask(before)
    assert modes == {"log.sqlite": 0o600, "log.sqlite-wal": 0o600, "log.sqlite-shm": 0o600}


def test_a_log_that_a_group_shares_stays_shared(path, received):
    honest(path).chmod(0o660)
    with RetrievalLog(path) as log:
        log.record("q", [], collection="", space="")
        log.redact(dropped)
        assert {stat.S_IMODE(entry.stat().st_mode) for entry in received.iterdir()} == {0o660}


def test_an_empty_file_becomes_a_log(path):
    path.touch()
    assert len(list(RetrievalLog(honest(path)).searches())) == 3


# -- texts that are to be gone


def holds(folder, text):
    return [entry.name for entry in folder.iterdir() if entry.is_file() and text.encode() in entry.read_bytes()]


def test_texts_that_were_deleted_without_care_go_with_the_next_redaction(path, received):
    honest(path, 400)
    changed(path, "DELETE FROM searches WHERE seq > 20")
    assert holds(received, f"{TEXT} 390")
    with RetrievalLog(path) as log:
        assert log.redact(dropped) == 20
        assert not holds(received, TEXT)


def test_deleting_old_searches_leaves_nothing_of_them(path, received):
    honest(path, 400)
    with RetrievalLog(path) as log:
        log.record("kept", [], collection="", space="")
        assert log.forget(before=NOON.replace(year=2026)) == 400
        assert not holds(received, TEXT) and len(log) == 1


READER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN")
db.execute("SELECT * FROM searches").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def reader(path):
    """Another process that reads the log, from now until it is told to stop."""
    honest(path, 300)
    process = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "reading\n"
    yield process
    process.communicate()


@pytest.mark.parametrize("what", ["redact", "forget"])
def test_what_another_process_still_reads_is_not_called_gone_and_goes_later(path, received, reader, what):
    with RetrievalLog(path, wait=0.1) as log:
        use = (
            (lambda: log.redact(dropped)) if what == "redact" else (lambda: log.forget(before=NOON.replace(year=2026)))
        )
        with pytest.raises(LogError, match="300 .*, but not yet gone: .*another process reads it: call this again"):
            use()
        assert holds(received, TEXT)
        reader.communicate()
        assert use() == 0
        assert not holds(received, TEXT)


def test_the_command_says_what_is_still_there(path, received, reader, run):
    code, out, err = run("log", "redact", path)
    assert (code, out) == (1, "") and "300 queries are redacted, but not yet gone" in err
    reader.communicate()
    assert run("log", "redact", path)[:2] == (0, "0 queries redacted\n")
    assert not holds(received, TEXT)


REDACTION = """
import sys
from qdrant_tools.log import RetrievalLog, dropped
print("begin", flush=True)
print(RetrievalLog(sys.argv[1]).redact(dropped), flush=True)
"""


@pytest.mark.parametrize("delay", [0, 0.02, 0.05, 0.1])
def test_a_redaction_that_is_killed_loses_nothing_and_is_finished_by_the_next(path, received, delay):
    honest(path, 3000)
    process = subprocess.Popen([sys.executable, "-c", REDACTION, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begin\n"
    time.sleep(delay)
    process.kill()
    process.communicate()
    with RetrievalLog(path) as log:
        assert len(log) == 3000
        log.redact(dropped)
        assert not holds(received, TEXT) and log.stats().redacted == len(log) == 3000


FULL = """
import os, resource, sys
from datetime import timedelta
from logs import NOON
from qdrant_tools.log import RetrievalLog, dropped
size = os.path.getsize(sys.argv[1]) // 2
with RetrievalLog(sys.argv[1]) as log:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # no file can grow beyond, as on a full disk
    try:
        log.redact(dropped, before=NOON + timedelta(seconds=1))
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_a_full_disk_says_that_texts_are_still_there_and_loses_nothing(path, received):
    honest(path, 3000)
    changed(path, "UPDATE searches SET at = '2026-01-31T12:00:00.000000+00:00' WHERE seq > 10")
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("LogError 10 queries are redacted, but not yet gone: "), done
    with RetrievalLog(path) as log:
        assert len(log) == 3000 and log.stats().redacted == 10
        assert log.redact(dropped) == 2990 and not holds(received, TEXT)


def test_a_file_with_holes_is_refused_before_it_is_checked(path, refused):
    with_holes(path)
    for use in (STATS, REDACT):
        assert "pages" in refused(*use[:2], path, *use[3:], like=LIKE)


def test_texts_cannot_leave_a_file_in_the_middle_of_a_batch(path):
    honest(path)
    with RetrievalLog(path) as log:
        with pytest.raises(UsageError, match="outside of batch"), log.batch():
            log.redact(dropped)
        assert log.stats().redacted == 0


# -- what is redacted and what only looks like it


TYPED = ["redacted:", "redacted:" + "ab" * 16, "redacted: my address is 5", "redacted:ab12", "Redacted:"]


def test_what_a_user_types_is_not_taken_for_redacted_and_is_redacted_in_its_turn(path, received):
    rule = hashed("a secret that is long")
    with RetrievalLog(path) as log:
        for query in TYPED:
            log.record(query, [], collection="", space="")
        assert [search.redacted for search in log.searches()] == [False] * 5 and log.stats().redacted == 0
        assert log.redact(rule) == 5
        first = [search.query for search in log.searches()]
        assert not set(first) & set(TYPED) and len(set(first)) == 5
        assert log.redact(rule) == 0 and [search.query for search in log.searches()] == first
        assert log.export_jsonl(received / "out.jsonl") == 5
        assert log.redact(dropped) == 5
    with RetrievalLog(path.with_name("again.sqlite"), redact=hashed("another long secret")) as again:
        assert again.import_jsonl(received / "out.jsonl") == 5
        assert [(search.query, search.redacted) for search in again.searches()] == [(query, True) for query in first]


def test_exports_keep_the_difference(path, received):
    searches = [LoggedSearch(f"s{i}", NOON, "redacted:", redacted=bool(i)) for i in range(2)]
    with RetrievalLog(path) as log:
        log.extend(searches)
        log.export_jsonl(received / "out.jsonl")
    with RetrievalLog(path.with_name("again.sqlite")) as log:
        log.import_jsonl(received / "out.jsonl")
        assert list(log.searches()) == searches


def test_a_row_cannot_claim_that_a_text_is_redacted():
    row = LoggedSearch("s", NOON, "my address").as_row()
    with pytest.raises(InputError, match="redacted is True"):
        LoggedSearch.from_row(row | {"redacted": True})
    for odd in (1, "no", None):
        with pytest.raises(InputError, match="redacted is"):
            LoggedSearch.from_row(row | {"redacted": odd})
    assert not LoggedSearch.from_row({key: row[key] for key in row if key != "redacted"}).redacted


# -- rows of JSON


def test_numbers_names_and_hits_beyond_what_a_search_has_are_one_error():
    good = LoggedSearch("s", NOON, "q").as_row()
    hits = [{"id": "a", "rank": 1, "score": 1}]
    odd = [
        *({"hits": [hits[0] | {"rank": rank}]} for rank in (float("inf"), float("nan"), 2**70, 10**400, -1, 1.5, "1")),
        *({"hits": [hits[0] | {"score": score}]} for score in (10**400, float("nan"), float("-inf"), "1", True, [])),
        *(
            {"feedback": [{"id": "a", "kind": "rating", "value": value}]}
            for value in (10**400, float("inf"), "x", None)
        ),
        *(
            {"at": at}
            for at in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2" * 10**6, 5, "2025-01-31")
        ),
        {"hits": hits * 10_001},
        {"hits": [{"id": "x" * 10**6, "rank": 1}]},
        {"feedback": [{"id": "a", "kind": "k" * 10**6}]},
        {"feedback": [{"id": "a", "kind": ["click"]}]},
        {"feedback": [{"id": "a", "kind": "click"}] * 10_001},
        {"id": "x" * 10**6},
        {"collection": "x" * 10**6},
        {"collection": ["docs"]},
        {"space": None},
    ]
    for row in odd:
        with pytest.raises(InputError) as refusal:
            LoggedSearch.from_row(good | row)
        assert len(str(refusal.value)) < 250, row


def test_the_same_holds_of_searches_that_a_program_adds(path):
    with RetrievalLog(path) as log:
        for search in (
            LoggedSearch("s", NOON, "q", hits=tuple(LoggedHit("a", rank) for rank in range(1, 10_002))),
            LoggedSearch("s", NOON, "q", hits=(LoggedHit("a", 2**70),)),
            LoggedSearch("s", NOON, "q", hits=(LoggedHit("a", 1, 10**400),)),
            LoggedSearch("s" * 5000, NOON, "q"),
            LoggedSearch("s", NOON, 5),
            LoggedSearch("s", NOON, "q", redacted=True),
        ):
            with pytest.raises(InputError):
                check_search(search)
            with pytest.raises(InputError):
                log.extend([search])
        with pytest.raises(LogError, match="16 MiB"):
            log.record("x" * (1 << 25), [], collection="", space="")
        assert len(log) == 0


ROW = '{"id": "s", "at": "2025-01-31T12:00:00+00:00", "query": "q", "hits": [{"id": "a", "rank": %s, "score": %s}]}\n'


@pytest.mark.parametrize(
    ("rank", "score"),
    [("Infinity", "1"), ("1e400", "1"), (2**70, "1"), (1, "9" * 401), (1, "9" * 5000), (1, "[" * 10**5)],
)
def test_a_file_of_such_rows_is_one_line(tmp_path, refused, rank, score):
    (tmp_path / "in.jsonl").write_text(ROW % (rank, score))
    assert "in.jsonl:1" in refused("log", "import", "new.sqlite", "in.jsonl", like=LIKE)


def test_another_systems_log_of_such_rows_is_one_line(tmp_path, refused):
    columns = '{"query": "q", "hits": "h", "rank": "r", "score": "s", "at": "t", "at_format": "seconds"}'
    good = '{"q": "x", "t": 1, "h": [{"id": "a", "r": 1, "s": 1}]}'
    for part, hostile in [
        ('"r": 1', '"r": 1e999'),
        ('"r": 1', '"r": NaN'),
        ('"s": 1', f'"s": {"9" * 401}'),
        ('"t": 1', '"t": 1e300'),
        ('"t": 1', f'"t": {"9" * 401}'),
        ('"id": "a"', '"id": [[[]]]'),
        ('"q": "x"', '"q": ["' + "x" * 10**6 + '"]'),
    ]:
        (tmp_path / "in.jsonl").write_text(good.replace(part, hostile) + "\n")
        message = refused("log", "import", "new.sqlite", "in.jsonl", "--columns", columns, like=LIKE)
        assert "in.jsonl:1: " in message and len(message) < 400


@pytest.mark.parametrize(
    "columns",
    ['{"query": 5}', '{"search": "s", "feedback": [1]}', '{"search": "s", "feedback": {"click": 5}}', "[1, {}]"]
    + ['{"search": "s", "at_format": "days"}', '{"search": ' + "[" * 10**5, '{"search": {}}', "{}"],
)
def test_columns_that_are_none_are_one_line(tmp_path, run, columns):
    (tmp_path / "in.csv").write_text("q\nx\n")
    code, _, err = run("log", "import", "new.sqlite", "in.csv", "--columns", columns)
    assert code in (1, 2) and len(err.splitlines()) == 1


def test_an_export_replaces_no_file_unless_it_is_told_to(path, tmp_path, outside, run):
    honest(path)
    code, _, err = run("log", "export", path, "--out", outside.secret)
    assert code == 2 and "--overwrite" in err
    (tmp_path / "link.jsonl").symlink_to(outside.secret)
    assert run("log", "export", path, "--out", "link.jsonl")[0] == 2
    assert run("log", "export", path, "--out", "link.jsonl", "--overwrite")[0] == 0
    assert not (tmp_path / "link.jsonl").is_symlink()

"""Logs as a stranger could make them: more than our tables, rows and pages that we never wrote, files beside a log."""

from __future__ import annotations

import os
import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime

from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, RetrievalLog, Verdict
from qdrant_tools.log.schema import MIGRATIONS

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
PAGE = 4096
TEXT = "my address is"


def honest(path, count=3):
    """A log of ours, closed."""
    hits, click = (LoggedHit("a", 1, 0.9), LoggedHit("b", 2, 0.5)), (Feedback("a", "click", 1.0, NOON),)
    said = (Verdict("thumb", 1.0, NOON), Verdict("comment", 1.0, NOON, text=f"{TEXT} unlisted"))
    with RetrievalLog(path) as log:
        log.extend(
            LoggedSearch(
                f"s{i}",
                NOON,
                f"{TEXT} {i}",
                "docs",
                "words@1",
                hits,
                click,
                answer=Answer(f"a{i}", f"then {TEXT} {i}", 1, ("a",), (), said),
            )
            for i in range(count)
        )
    return path


def changed(path, *statements):
    """Statements of SQL that a stranger ran on a log of ours. It is one file afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = OFF")
        for statement in statements:
            db.execute(statement)


def old(path, version):
    """A log of an earlier version, closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript("".join(MIGRATIONS[:version]) + f"PRAGMA user_version = {version};")
        for number, query in enumerate([f"{TEXT} 1", "redacted:", "redacted:" + "0a" * 16, "redacted: no"], start=1):
            at = f"2025-01-31T12:00:00.00000{number}+00:00"
            db.execute("INSERT INTO searches VALUES (?, ?, ?, ?, 'docs', 'words@1')", [number, f"s{number}", at, query])
            db.execute("INSERT INTO hits VALUES (?, 1, 'a', 0.5)", [number])
            sql = "INSERT INTO feedback (seq, hit_id, kind, value, at) VALUES (?, 'a', 'click', 1.0, ?)"
            db.execute(sql, [number, at])
    return path


FOREIGN = {
    "a trigger that keeps texts": [
        "CREATE TABLE kept (text TEXT)",
        "CREATE TRIGGER keep AFTER UPDATE ON searches BEGIN INSERT INTO kept VALUES (old.query); END",
    ],
    "a trigger of the name of a table": [
        "CREATE TRIGGER hits AFTER UPDATE ON searches BEGIN UPDATE searches SET query = old.query; END"
    ],
    "a view for a table": [
        "DROP TABLE feedback",
        "CREATE VIEW feedback AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i AS number, i AS seq, 'a' AS hit_id, 'click' AS kind, 1.0 AS value, '' AS at FROM n",
    ],
    "an index over an expression": ["CREATE INDEX one ON searches (lower(query))"],
    "a generated column": ["ALTER TABLE searches ADD COLUMN more TEXT AS (zeroblob(900000000))"],
    "a default": ["ALTER TABLE hits ADD COLUMN more TEXT DEFAULT 'x'"],
    "a table for searching": ["CREATE VIRTUAL TABLE words USING fts5 (text)"],
    "one table less": ["DROP TABLE hits"],
    "a column of another type": [
        "DROP TABLE hits",
        "CREATE TABLE hits (seq INTEGER NOT NULL REFERENCES searches (seq) ON DELETE CASCADE, rank NOT NULL, "
        "hit_id TEXT NOT NULL, score REAL, PRIMARY KEY (seq, rank)) WITHOUT ROWID",
    ],
    "a check": [
        "ALTER TABLE hits ADD COLUMN more TEXT CHECK (length(hex(zeroblob(400000000))) > 0)",
    ],
    "the mark of another program": ["PRAGMA application_id = 1196444487"],
    "no mark": ["PRAGMA application_id = 0"],
    "a version that never was": ["PRAGMA user_version = -5"],
    "a newer version": ["PRAGMA user_version = 2147483647"],
    "the first version, with the mark": ["PRAGMA user_version = 1"],
    "a schema that is no SQL": [
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE hits (' || hex(randomblob(500)) WHERE name = 'hits'",
    ],
}
"""What a stranger did to a log of ours, so that it is none."""

ROWS = {
    "a time that is none": "UPDATE searches SET at = 'yesterday' WHERE seq = 2",
    "a time of megabytes": "UPDATE searches SET at = hex(zeroblob(3000000)) WHERE seq = 2",
    "a time that is a number": "UPDATE feedback SET at = x'00' WHERE seq = 2",
    "a month 13": "UPDATE searches SET at = '2025-13-31T12:00:00.000000+00:00' WHERE seq = 2",
    "a time with more behind it": "UPDATE searches SET at = at || char(0) || 'more' WHERE seq = 2",
    "a collection with more behind it": "UPDATE searches SET collection = 'a' || char(0) || hex(zeroblob(300000)) "
    "WHERE seq = 2",
    "a query that is a blob": "UPDATE searches SET query = x'00ff' WHERE seq = 2",
    "a query that is no UTF-8": "UPDATE searches SET query = CAST(x'6d79fffe' AS TEXT) WHERE seq = 2",
    "an id that is no UTF-8": "UPDATE searches SET id = CAST(x'ff' AS TEXT) WHERE seq = 2",
    "an id of megabytes": "UPDATE searches SET id = hex(zeroblob(3000000)) WHERE seq = 2",
    "a collection of megabytes": "UPDATE searches SET collection = hex(zeroblob(3000000)) WHERE seq = 2",
    "a space that is a blob": "UPDATE searches SET space = x'00' WHERE seq = 2",
    "redacted neither 0 nor 1": "UPDATE searches SET redacted = 7 WHERE seq = 2",
    "redacted and yet a text": "UPDATE searches SET redacted = 1 WHERE seq = 2",
    "texts where SQLite counts": "INSERT INTO sqlite_sequence VALUES ('my address', 2)",
    "a rank that is a text": "UPDATE hits SET rank = 'first' WHERE seq = 2 AND rank = 1",
    "a rank that is infinite": "UPDATE hits SET rank = 9e999 WHERE seq = 2 AND rank = 1",
    "a rank of 2**62": "UPDATE hits SET rank = 4611686018427387904 WHERE seq = 2 AND rank = 1",
    "a rank of 0": "UPDATE hits SET rank = 0 WHERE seq = 2 AND rank = 1",
    "a score that is a text": "UPDATE hits SET score = 'good' WHERE seq = 2",
    "a passage that is a blob": "UPDATE hits SET hit_id = x'41' WHERE seq = 2",
    "a passage of megabytes": "UPDATE hits SET hit_id = hex(zeroblob(3000000)) WHERE seq = 2",
    "a kind that is none": "UPDATE feedback SET kind = 'liked' WHERE seq = 2",
    "a value that is infinite": "UPDATE feedback SET value = -9e999 WHERE seq = 2",
    "a value that is a text": "UPDATE feedback SET value = 'much' WHERE seq = 2",
    "an answer that is not there": "UPDATE searches SET answer = 77 WHERE seq = 2",
    "generated neither 0 nor 1": "UPDATE searches SET generated = 'yes' WHERE seq = 2",
    "a user of megabytes": "UPDATE searches SET user = hex(zeroblob(3000000)) WHERE seq = 2",
    "an answer that is a blob": "UPDATE answers SET text = x'00ff' WHERE seq = 2",
    "an answer of no searches": "UPDATE answers SET searches = 0 WHERE seq = 2",
    "an answer whose passages are no list": "UPDATE answers SET context = '{}' WHERE seq = 2",
    "an answer whose passages have no list in depth": "UPDATE answers SET cited = replace(hex(zeroblob(90000)), "
    "'0', '[') WHERE seq = 2",
    "a verdict that is none": "UPDATE verdicts SET kind = 'praise' WHERE seq = 2 AND kind = 'thumb'",
    "a verdict of a nobody": "UPDATE verdicts SET said_by = 'cat' WHERE seq = 2",
    "a thumb of 7": "UPDATE verdicts SET value = 7 WHERE seq = 2 AND kind = 'thumb'",
    "a comment of megabytes": "UPDATE verdicts SET text = hex(zeroblob(3000000)) WHERE seq = 2",
    "ten thousand verdicts": "INSERT INTO verdicts SELECT 2, 'thumb', 'person', value, '', 1.0, "
    "'2025-01-31T12:00:00.000000+00:00', '' FROM (WITH RECURSIVE n(value) AS "
    "(SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 10000) SELECT value FROM n)",
    "a million hits": "INSERT INTO hits SELECT 2, value + 2, 'a', NULL FROM (WITH RECURSIVE n(value) AS "
    "(SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 1000000) SELECT value FROM n)",
    "a hundred thousand events": "INSERT INTO feedback (seq, hit_id, kind, value, at) "
    "SELECT 2, value, 'rating', 1.0, '2025-01-31T12:00:00.000000+00:00' FROM (WITH RECURSIVE n(value) AS "
    "(SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 100000) SELECT value FROM n)",
}
"""SQL that leaves a row in a log which we would never have written. All are about the search with seq 2."""


def root_of(path, table):
    with closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [table]).fetchone()[0]


def patched(path, number, change):
    """Change the bytes of one page."""
    content = bytearray(path.read_bytes())
    page = content[(number - 1) * PAGE : number * PAGE]
    change(page)
    content[(number - 1) * PAGE : number * PAGE] = page
    path.write_bytes(content)


def interior(page, child, cells=300):
    """Make a page one of a tree of numbers whose every branch is the page `child`."""
    page[:] = bytes(PAGE)
    struct.pack_into(">BHHHBI", page, 0, 5, 0, cells, PAGE - 7 * cells, 0, child)
    for cell in range(cells):
        at = PAGE - 7 * (cell + 1)
        struct.pack_into(">H", page, 12 + 2 * cell, at)
        key = (cell + 1) * 60
        struct.pack_into(">IBBB", page, at, child, 0x80 | key >> 14, 0x80 | key >> 7 & 0x7F, key & 0x7F)


def with_endless_tree(path):
    """A table whose tree has 300 branches at each of 12 levels, which are all the same pages."""
    honest(path, 100)
    root = root_of(path, "searches")
    pages = os.path.getsize(path) // PAGE
    with path.open("ab") as file:
        file.write(bytes(12 * PAGE))
    leaf = pages + 12
    for level in range(11):
        patched(path, pages + 1 + level, lambda page, level=level: interior(page, pages + 2 + level))
    patched(path, leaf, lambda page: page.__setitem__(slice(0, 8), b"\x0d\0\0\0\0\x10\0\0"))
    patched(path, root, lambda page: interior(page, pages + 1))
    patched(path, 1, lambda page: struct.pack_into(">I", page, 28, leaf))


def with_circle(path):
    """A table whose tree is its own branch."""
    honest(path, 100)
    root = root_of(path, "searches")
    patched(path, root, lambda page: interior(page, root))


def with_searches_that_are_feedback(path):
    """Two tables that share their pages."""
    honest(path, 100)
    changed(
        path,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'feedback') "
        "WHERE name = 'searches'",
    )


def with_overflow_of_gigabytes(path):
    """A text that claims to be two gigabytes long."""
    honest(path, 3)
    root = root_of(path, "searches")

    def claim(page):
        at = struct.unpack_from(">H", page, 8)[0]
        page[at : at + 5] = b"\x87\xff\xff\xff\x7f"

    patched(path, root, claim)


def cut_off(path):
    honest(path, 500)
    path.write_bytes(path.read_bytes()[: 5 * PAGE + 100])


def of_a_header_only(path):
    path.write_bytes(honest(path).read_bytes()[:100])


def claiming_pages(path):
    honest(path)
    patched(path, 1, lambda page: struct.pack_into(">I", page, 28, 0x7FFFFFFF))
    patched(path, 1, lambda page: struct.pack_into(">I", page, 92, struct.unpack_from(">I", page, 24)[0]))


def with_holes(path):
    """A file of terabytes that takes a few pages of the disk."""
    honest(path)
    pages = (1 << 28) + 1
    patched(path, 1, lambda page: struct.pack_into(">I", page, 28, pages))
    patched(path, 1, lambda page: struct.pack_into(">I", page, 92, struct.unpack_from(">I", page, 24)[0]))
    os.truncate(path, pages * PAGE)


def with_a_page_of_noise(path):
    honest(path)
    patched(path, 1, lambda page: page.__setitem__(slice(100, PAGE), b"\xff" * (PAGE - 100)))


DAMAGED = {
    "a tree without end": with_endless_tree,
    "a tree that is its own branch": with_circle,
    "two tables on the same pages": with_searches_that_are_feedback,
    "a text of two gigabytes": with_overflow_of_gigabytes,
    "a file cut off": cut_off,
    "a header": of_a_header_only,
    "a size of eight terabytes": claiming_pages,
    "noise": with_a_page_of_noise,
}
"""Files whose pages are not those of a database."""


def hot_journal(path, victim):
    """A journal beside a log that SQLite rolls back, and then deletes the file whose name stands at its end."""
    content = path.read_bytes()
    page, nonce = content[:PAGE], 7
    check = (nonce + sum(page[at] for at in range(PAGE - 200, 0, -200))) & 0xFFFFFFFF
    magic = bytes.fromhex("d9d505f920a163d7")
    header = (magic + struct.pack(">5I", 1, nonce, len(content) // PAGE, 512, PAGE)).ljust(512, b"\0")
    name = os.fsencode(victim)
    end = struct.pack(">I", 0x40000000 // PAGE + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    (path.parent / f"{path.name}-journal").write_bytes(
        header + struct.pack(">I", 1) + page + struct.pack(">I", check) + end
    )


def damage(content, random):
    """Change bytes of a file at a few places, or cut it off."""
    content = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        start = random.randrange(len(content) // PAGE + 1) * PAGE
        at = random.choice([random.randrange(len(content)), random.randrange(100), start + random.randrange(30)])
        new = random.choice([b"\0", b"\1", b"\x7f", b"\xff", b"\0\0\0\2", b"\x7f\xff\xff\xff", random.randbytes(8)])
        content[at : at + len(new)] = new
        other = random.randrange(len(content) // PAGE + 1) * PAGE
        if random.random() < 0.1:
            content[start : start + PAGE] = content[other : other + PAGE]
        if random.random() < 0.05:
            del content[random.randrange(100, len(content)) :]
    return bytes(content)


def other_program(path, *, mark=0):
    """The database of another program, in the mode of our logs. It has a table of one of our names."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA application_id = {mark}")
        db.execute("CREATE TABLE searches (id TEXT, query TEXT)")
        db.execute("INSERT INTO searches VALUES ('1', 'mine')")
        db.commit()
    return path

"""`embed-plus log import` of other systems' logs: looked at before anything is written, and told how to go on."""

from __future__ import annotations

import re
import shlex

import pytest
from command_line import error_line

DUMP = """when,sess,term,shown,click
2026-10-20 11:46:47,s1,tea,a|b|c,b
2026-10-20 11:47:47,s1,green tea,c|a,
2026-10-20 11:48:47,s2,coffee,d,d
2026-10-20 11:49:47,s2,milk,x|y,x|y
"""
# another system's log -> what its refusal proposes, which has to work as it stands
LOGS = {
    "dump.csv": DUMP,
    "hits.csv": "id,ts,user_id,search_term,doc_id,position,clicked\n"
    "1,1772355600,u1,tea,a,1,0\n1,1772355600,u1,tea,b,2,1\n2,1772355700,u2,milk,c,1,0\n",
    "spaces.csv": 'Search Term,Time,Result Ids,Clicked Id\ntea,2026-10-20T11:46:47Z,"[""a"", ""b""]",a\n',
    "nested.jsonl": '{"user": {"query": "tea"}, "timestamp": 1772355600123, "results": ["a", "b"], "click": ["b"]}\n',
    "deutsch.csv": "Zeitpunkt,Suchtext,Trefferliste,Geöffnet\n"
    "2026-10-20 11:46:47,wie heisst das,a|b|c,b\n2026-10-20 11:48:47,Tee,c|d,\n",
    "rows.json": '[{"query": "tea", "at": "2026-10-20T11:46:47Z", "results": ["a", "b"], "click": ["b"]},\n'
    ' {"query": "milk", "at": "2026-10-20T11:47:47Z", "results": ["c"], "click": []}]\n',
    "objects.json": '[{"q": "tea", "ts": 1772355600123, "results": [{"docId": "a b", "score": 1}], "clicks": ["a b"]}]',
    "tage.csv": "Zeitpunkt;Besucher;Suchbegriff;Treffer;Geklickt\n03.08.2026 08:37:00;b 1;grüner Tee;n 1|n 2;n 2\n",
    "days.csv": "time,query,hits\n8/13/2026 8:37 AM,tea,a|b\n8/1/2026 8:37 AM,milk,a|c\n",
    "repr.tsv": "question\tretrieved_ids\ttime\ntea\t['a', 'b']\t2026-10-20 11:46\n",
}


@pytest.mark.parametrize("name", LOGS)
def test_what_a_refusal_proposes_works(run, tmp_path, name):
    (tmp_path / name).write_text(LOGS[name])
    code, _, err = run("log", "import", "log.sqlite", name)
    line = error_line(err)
    assert code == 2 and "the keys are query, search, session, at" in line and "log import --help" in line
    assert ".csv" not in name or re.split("[,;]", LOGS[name])[0] in line
    proposed = shlex.split(line[line.index("embed-plus log import") :])[1:]
    code, out, err = run(*proposed)
    assert code == 0 and "nothing was written: a dry run" in out and "as understood:" in err
    assert shlex.split(err.splitlines()[-1])[1:] == ["embed-plus", *proposed[:-1]]
    assert not list(tmp_path.glob("log.sqlite*"))
    assert run(*proposed[:-1])[0] == 0


def test_the_first_searches_are_shown_as_they_were_understood(run, tmp_path):
    (tmp_path / "dump.csv").write_text(DUMP)
    columns = "query=term at=when session=sess hits=shown click=click"
    code, out, err = run("log", "import", "log.sqlite", "dump.csv", "--columns", columns, "--timezone", "+02:00")
    assert code == 0 and out.startswith("log.sqlite: 4 searches added, 4 in all\n")
    assert "  2026-10-20 09:46:47 UTC  session s1  tea\n    3 hits: a, b, c\n    click b\n" in err
    assert "4 searches in all: 4 click" in err and "milk" not in err
    assert err.splitlines()[-1] == "next: embed-plus mine COLLECTION log.sqlite --out examples.jsonl"
    code, out, _ = run("log", "import", "log.sqlite", "dump.csv", "--columns", columns, "--timezone", "+02:00")
    assert out.startswith("log.sqlite: 0 searches added, 4 in all\n")


def test_columns_in_another_language_are_told_by_what_they_hold(run, tmp_path):
    (tmp_path / "deutsch.csv").write_text(LOGS["deutsch.csv"], encoding="utf-8")
    _, _, err = run("log", "import", "log.sqlite", "deutsch.csv")
    assert "query=Suchtext at=Zeitpunkt hits=Trefferliste click=Geöffnet zone=UTC" in error_line(err)


def test_a_list_of_rows_in_json_is_read_as_its_rows_in_jsonl(run, tmp_path):
    (tmp_path / "rows.json").write_text(LOGS["rows.json"])
    columns = "query=query at=at hits=results click=click"
    code, out, err = run("log", "import", "log.sqlite", "rows.json", "--columns", columns)
    assert code == 0 and out.startswith("log.sqlite: 2 searches added") and "1 click" in err
    (tmp_path / "bad.json").write_text("[7]")
    code, _, err = run("log", "import", "other.sqlite", "bad.json", "--columns", columns)
    assert code == 1 and "bad.json:1: 7 is no row, expected an object of columns" in error_line(err)


def test_the_next_command_is_mining_where_the_log_names_its_collection(run, tmp_path):
    (tmp_path / "dump.csv").write_text(DUMP)
    columns = "query=term at=when zone=UTC hits=shown click=click collection=docs"
    *_, err = run("log", "import", "my log.sqlite", "dump.csv", "--columns", columns)
    assert err.splitlines()[-1] == "next: embed-plus mine docs 'my log.sqlite' --out examples.jsonl"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--columns", "query=term at=when hits=shown"], 1, "(--timezone UTC)"),
        (["--columns", "query=term hits=shown", "--timezone", "Mars"], 1, "zone is 'Mars'"),
        (["--columns", "query=term hits=typo"], 1, "there is no column 'typo'"),
        (["--columns", "query=term when=when"], 2, "have ['when'], expected some of query, search"),
        (["--timezone", "UTC"], 2, "say with --columns which column is what"),
    ],
)
def test_a_refusal_makes_no_log(run, tmp_path, arguments, code, message):
    (tmp_path / "dump.csv").write_text(DUMP)
    found, _, err = run("log", "import", "log.sqlite", "dump.csv", *arguments)
    assert found == code and message in error_line(err)
    assert not list(tmp_path.glob("log.sqlite*"))


@pytest.mark.parametrize(
    ("name", "content", "way"),
    [
        ("empty.csv", b"", "embed-plus synthesize COLLECTION --out examples.jsonl"),
        ("header.csv", b"query;hits\n", "embed-plus synthesize COLLECTION --out examples.jsonl"),
        ("latin.csv", "Zeit;Begriff\n2026-01-01 10:00:00;Übergewicht\n".encode("latin-1"), "iconv -f WINDOWS-1252"),
        ("wrapped.json", b'{"searches": [{"q": "tea"}]}', "jq .KEY wrapped.json > rows.json"),
        ("dump.sql", b"INSERT INTO searches VALUES (1);", "psql --csv"),
    ],
)
def test_a_file_that_is_no_log_is_answered_with_what_makes_one(run, tmp_path, name, content, way):
    (tmp_path / name).write_bytes(content)
    code, _, err = run("log", "import", "log.sqlite", name)
    assert code in (1, 2) and way in error_line(err)


def test_an_export_that_is_damaged_makes_no_log(run, tmp_path):
    (tmp_path / "out.jsonl").write_text('{"id": "1", "at": "x", "query": "tea", "hits": []}\n')
    assert run("log", "import", "log.sqlite", "out.jsonl")[0] == 1
    assert not list(tmp_path.glob("log.sqlite*"))


def test_help_explains_every_key(run):
    from qdrant_tools.log.naming import KEYS

    out = run("log", "import", "--help")[1]
    assert [key for key in KEYS if key not in out and key not in ("zone",)] == []
    assert "--columns 'query=term session=visit at=time hits=shown click=clicked' --timezone UTC" in out


def test_columns_are_read_from_packed_files_and_a_file_that_is_none_is_refused(run, tmp_path):
    told = re.sub(r"[\s│|]+", " ", run("log", "import", "--help")[1])
    assert "or .parquet, also packed (.gz)" in told
    for name, why in (
        ("dump.csv.gz", "no column 'nobody'"),
        ("dump.parquet", "is no Parquet file"),
        ("dump.gz", "expected .jsonl"),
    ):
        (tmp_path / name).write_text(DUMP)
        code, _, err = run("log", "import", "log.sqlite", name, "--columns", "query=term hits=nobody")
        assert code != 0 and why in err.splitlines()[-1]

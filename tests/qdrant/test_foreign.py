"""What a cell of a foreign file says: the spellings of databases and spreadsheets, and nothing beyond them."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdrant_tools.errors import InputError
from qdrant_tools.foreign import (
    as_amount,
    as_flag,
    as_rank,
    as_seconds,
    as_time,
    as_vote,
    as_zone,
    is_absent,
    is_missing,
)

NOTHING = ["", " ", r"\N", "NULL", "null", "NaN", "nan", "None", "<NA>", "#N/A", "N/A", "-", "--", None, math.nan]
NO = [
    "f",
    "F",
    "false",
    "FALSE",
    "False",
    "N",
    "n",
    "no",
    "off",
    "0",
    "0.00",
    "-0",
    "[]",
    "{}",
    "FALSCH",
    "Nein",
    "YANLIŞ",
]
YES = [
    "t",
    "T",
    "true",
    "TRUE",
    "y",
    "Y",
    "Yes",
    "on",
    "1",
    "1.0",
    "+1",
    "WAHR",
    "ja",
    "VERDADERO",
    "ИСТИНА",
    "\uff34\uff32\uff35\uff25",
]
UNKNOWN = ["maybe", "-1", "2.5", "x", "inf", "1_0", "\u0661", "tr", "0,5", "yes no", "false?", "click", "1e999", "[1]"]
TIMES = ["2026-03-01 09:00:00", "2026-03-01T09:00:00.123Z", "2026-03-01", datetime(2026, 3, 1), date(2026, 3, 1)]
NEVER = ["0000-00-00 00:00:00", "0001-01-01T00:00:00"]

cased = st.sampled_from([str.lower, str.upper, str.title, lambda text: f" {text}\t", lambda text: f"\u00a0{text}"])


@given(st.sampled_from(NO), cased, st.booleans())
def test_a_no_is_a_no_however_it_is_written(word, spelled, counts):
    assert as_flag("c", spelled(word), counts=counts) is False


@given(st.sampled_from(YES), cased, st.booleans())
def test_a_yes_is_a_yes_however_it_is_written(word, spelled, counts):
    assert as_flag("c", spelled(word), counts=counts) is True


@pytest.mark.parametrize("value", NOTHING)
def test_an_empty_cell_says_nothing(value):
    assert is_missing(value) and as_flag("c", value) is None and as_vote("c", value) is None


@pytest.mark.parametrize("value", [*UNKNOWN, -1, 2.5, [1], {"a": False}, b"1", math.inf, 10**400])
@pytest.mark.parametrize("counts", [True, False])
def test_an_unknown_value_is_no_click(value, counts):
    if counts and value == 10**400:
        return
    with pytest.raises(InputError, match="^column 'c' is .*, expected yes or no"):
        as_flag("column 'c'", value, counts=counts)


@given(st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers())))
def test_whatever_a_cell_holds_it_is_read_or_refused(value):
    known = {*map(str.casefold, map(str, [*NO, *YES])), *[str(v).casefold() for v in NOTHING]}
    for counts in (True, False):
        try:
            said = as_flag("c", value, counts=counts)
        except InputError as error:
            assert len(str(error)) < 300 and "\n" not in str(error)
        else:
            # nothing but a known word, a number or a time is a yes
            assert said in (True, False, None)
            if said and isinstance(value, str) and value.strip().casefold() not in known:
                assert (
                    any(character.isdigit() for character in value)
                    or value.strip().isalpha()
                    or value.strip() in "✓✔✅"
                )


def test_clicks_are_counted_or_dated_too_but_only_where_that_is_meant():
    assert [as_flag("c", value, counts=True) for value in (0, 3, "12", 1_700_000_000, "0.0", np.int64(2))] == [
        False, True, True, True, False, True,
    ]  # fmt: skip
    assert all(as_flag("c", value, counts=True) is True for value in TIMES)
    assert as_flag("c", ["2026-03-01T09:00:00Z", "2026-03-01T09:00:07Z"], counts=True) is True
    assert all(as_flag("c", value, counts=True) is False for value in NEVER)
    for value in (3, "12", *TIMES, *NEVER):
        with pytest.raises(InputError):
            as_flag("c", value)
    for value in ("1970-01-01 00:00:00", "9999-12-31 00:00:00", ["2026-03-01", 0], [False]):
        with pytest.raises(InputError):
            as_flag("c", value, counts=True)


def test_a_vote_is_up_down_or_none():
    for word in ("up", "UP", "thumbs_up", "Thumbs Up", "like", "+1", "👍", "👍🏿", 1, True, "yes"):
        assert as_vote("c", word) is True
    for word in ("down", "thumbs-down", "Dislike", "not helpful", "-1", -1, -1.0, "👎🏼"):
        assert as_vote("c", word) is False
    assert [as_vote("c", word) for word in ("no", "false", 0, "", None)] == [None] * 5
    assert [as_vote("c", word, yes=False) for word in (True, "down", "up", 0)] == [False, False, True, None]
    assert [as_vote("c", word, no=False) for word in ("yes", "no", False)] == [True, False, False]
    with pytest.raises(InputError, match="0 is no vote to some"):
        as_vote("c", 0, no=False)
    for word in ("5", 2, "meh", [], ["up"], "up down"):
        if word != []:
            with pytest.raises(InputError, match="expected a vote"):
                as_vote("c", word)


@given(st.integers(1, 2**31 - 2), st.sampled_from([str, float, int, lambda n: f" {n} ", lambda n: f"{n}.0"]))
def test_a_rank_is_a_whole_number_from_the_first_place(rank, spelled):
    assert as_rank("c", spelled(rank)) == rank
    assert as_rank("c", spelled(rank - 1), first=0) == rank


@pytest.mark.parametrize(
    "value", [0, -1, 2.7, "nan", "1st", "#1", True, None, "", "1,0", "\u0661", "1e40", "inf", [1], "one"]
)
def test_what_is_no_place_is_no_rank(value):
    with pytest.raises(InputError, match="expected a rank: a whole number from 1"):
        as_rank("c", value)


@given(st.floats(-1e9, 1e9), st.sampled_from([".", ","]))
def test_a_number_is_read_in_both_decimal_marks_or_refused(number, mark):
    text = f"{number:.2f}".replace(".", mark)
    assert as_amount("c", text) == pytest.approx(round(number, 2))


@given(st.integers(1, 999), st.integers(0, 999))
def test_a_comma_that_may_part_thousands_is_refused(whole, part):
    with pytest.raises(InputError, match="may part thousands or decimals"):
        as_amount("c", f"{whole},{part:03}")
    assert as_amount("c", f"0,{part:03}") == part / 1000


def test_lengths_of_time_say_their_unit():
    spelled = ["12s", "12 sec", "0:00:12", "00:00:12.000", "12000ms", "0,2 min", "PT12S", "0 days 00:00:12"]
    assert [as_seconds("c", text) for text in spelled] == [12.0] * len(spelled)
    assert as_seconds("c", 1500, unit="milliseconds") == 1.5 and as_seconds("c", "2s", unit="milliseconds") == 2.0
    for value in (
        "01:30",
        "5m",
        -1,
        "-00:00:12",
        "12 parsecs",
        "",
        None,
        "PT",
        True,
        "1,234",
        "nan",
        "00:61:00",
        "1 2",
    ):
        with pytest.raises(InputError):
            as_seconds("c", value)


moments = st.datetimes(datetime(1990, 1, 2), datetime(2099, 12, 30))


@given(moments, st.integers(-14 * 4, 14 * 4), st.sampled_from(["T", " "]))
def test_a_time_is_read_with_its_zone_in_every_iso_spelling(moment, quarters, between):
    offset = timedelta(minutes=15 * quarters)
    sign = "-" if quarters < 0 else "+"
    hours, minutes = divmod(abs(15 * quarters), 60)
    for zone in (f"{sign}{hours:02}:{minutes:02}", f" {sign}{hours:02}{minutes:02}"):
        text = f"{moment:%Y-%m-%d}{between}{moment:%H:%M:%S.%f}{zone}"
        assert as_time("c", text) == (moment - offset).replace(tzinfo=UTC)
    assert as_time("c", f"{moment.isoformat()}Z") == moment.replace(tzinfo=UTC)
    with pytest.raises(InputError, match='without a zone: write one .*zone="UTC"'):
        as_time("c", moment.isoformat(sep=between))
    assert as_time("c", moment.isoformat(sep=between), zone=as_zone("z", "+01:00")) == (
        moment - timedelta(hours=1)
    ).replace(tzinfo=UTC)


@given(moments)
def test_a_unit_that_is_not_the_files_is_found_by_the_year(moment):
    since = int((moment - datetime(1970, 1, 1)).total_seconds())
    forms = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
    for form, per in forms.items():
        for spelled in (int, str):
            assert as_time("c", spelled(since * per), form=form) == moment.replace(microsecond=0, tzinfo=UTC)
        for other in forms.keys() - {form}:
            with pytest.raises(InputError, match=f"expected {other} since 1970 .*as {form} it would be of"):
                as_time("c", since * per, form=other)
        with pytest.raises(InputError, match=f'at_format="{form}"'):
            as_time("c", since * per)


@pytest.mark.parametrize(
    ("value", "way"),
    [
        ("26/11/2026 10:00", "may stand first: say at_format=day-first or at_format=month-first"),
        ("11-26-2026", "a day without a time, in which the day or the month may stand first"),
        ("26.11.26 10:00", "a year in two digits"),
        (46352.4166667, "as Excel stores dates"),
        ("2026-11-26", "a day without a time"),
        ("2026-02-30T10:00:00Z", "which no calendar or clock has"),
        ("1987-01-01T00:00:00Z", "of the year 1987"),
        ("2987-01-01T00:00:00Z", "of the year 2987"),
        ("yesterday", "expected an ISO 8601 time"),
        (None, "expected an ISO 8601 time"),
    ],
)
def test_other_times_are_refused_with_what_is_right(value, way):
    with pytest.raises(InputError, match=way):
        as_time("c", value)


@pytest.mark.parametrize(
    ("value", "form", "moment"),
    [
        ("03.08.2026 08:37:05", "day-first", datetime(2026, 8, 3, 8, 37, 5, tzinfo=UTC)),
        ("3/8/2026, 8:37 PM", "day-first", datetime(2026, 8, 3, 20, 37, tzinfo=UTC)),
        ("3/8/2026 8:37 AM", "month-first", datetime(2026, 3, 8, 8, 37, tzinfo=UTC)),
        ("03-08-2026T08:37:00.5Z", "month-first", datetime(2026, 3, 8, 8, 37, 0, 500_000, tzinfo=UTC)),
        ("2026-03-08 08:37:00", "day-first", datetime(2026, 3, 8, 8, 37, tzinfo=UTC)),
    ],
)
def test_days_and_months_in_numbers_are_read_in_the_order_that_is_told(value, form, moment):
    assert as_time("c", value, form=form, zone=UTC) == moment


@pytest.mark.parametrize(
    ("value", "form"), [("26/11/2026 10:00", "month-first"), ("3/8/2026 13:00 PM", "day-first"), (5, "day-first")]
)
def test_an_order_that_no_calendar_allows_is_refused(value, form):
    with pytest.raises(InputError):
        as_time("c", value, form=form, zone=UTC)


def test_an_hour_that_the_clocks_repeat_or_skip_is_refused():
    berlin = as_zone("zone", "Europe/Berlin")
    assert as_time("c", "2026-07-01 12:00:00", zone=berlin) == datetime(2026, 7, 1, 10, tzinfo=UTC)
    for text in ("2026-10-25 02:30:00", "2026-03-29 02:30:00"):
        with pytest.raises(InputError, match="twice or never: write it with its offset"):
            as_time("c", text, zone=berlin)
    assert as_time("c", "2026-10-25 02:30:00+01:00", zone=berlin) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    for name in ("Mars/Base", "../../etc/passwd", "", "+25:00", "CEST+1"):
        with pytest.raises(InputError, match="zone is"):
            as_zone("zone", name)


def test_a_text_that_people_type_is_no_empty_cell():
    assert not any(map(is_absent, ["none", "nan", "null", "-", "n/a", "0", 0, False]))
    assert all(map(is_absent, ["", "  ", "NULL", r"\N", "NaN", "<NA>", None, math.nan]))

"""What strangers write into their files -> what they mean by it; or one `InputError`, never a guess.

A cell says nothing, no, yes, a rank, an amount or a time. The spellings are those of PostgreSQL, MySQL, SQL Server,
pandas, R, Excel, JSON and the languages that write them; whatever else is in a cell is refused.

Guarantees: an unknown value is never taken for yes; what two countries read differently ("1,234", "03/04/2026") is
refused. Does not know: files, lines, which columns there are, which
may be left unread (`unread`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np

from qdrant_tools.errors import InputError, brief
from qdrant_tools.same import folded
from qdrant_tools.validation import number_in

__all__ = [
    "WITH_ZONE",
    "TimeFormat",
    "as_amount",
    "as_flag",
    "as_rank",
    "as_seconds",
    "as_time",
    "as_vote",
    "as_zone",
    "is_absent",
    "is_missing",
]

TimeFormat = Literal["iso", "day-first", "month-first", "seconds", "milliseconds", "microseconds", "nanoseconds"]
WITH_ZONE: frozenset[TimeFormat] = frozenset(["iso", "day-first", "month-first"])
"""Those in which a zone can be missing."""

_MISSING = frozenset(
    {"", r"\n", "null", "(null)", "<null>", "[null]", "nil", "none", "nan", "<na>", "nat", "n/a", "#n/a", "na", "-"}
    | {"\u2205", "\u00a4", "(not set)", "(empty)", "undefined"}
    | {"--", "\u2013", "\u2014", "#nv", "#nan", "1.#qnan", "-nan"}
)
# of cells that hold a text: only what no person types
_ABSENT = frozenset(
    {"", r"\N", "NULL", "(NULL)", "(null)", "<null>", "[NULL]", "NaN", "NaT", "<NA>", "#N/A", "#NV"}
) | {"(not set)", "(empty)"}
# Excel writes booleans in the language of the machine
_YES = frozenset(
    [
        "true",
        "t",
        "yes",
        "y",
        "on",
        "wahr",
        "ja",
        "vrai",
        "oui",
        "verdadero",
        "sí",
        "si",
        "vero",
        "verdadeiro",
        "sim",
        "waar",
        "prawda",
        "tak",
        "истина",
        "да",
        "sant",
        "sand",
        "tosi",
        "doğru",
        "evet",
        "igaz",
        "pravda",
        "b'1'",
        "0x01",
        "\x01",
        "\u2611",
        "\u2713",
        "\u2714",
        "\u2705",
    ]
)
_NO = frozenset(
    [
        "false",
        "f",
        "no",
        "n",
        "off",
        "falsch",
        "nein",
        "faux",
        "non",
        "falso",
        "não",
        "onwaar",
        "nee",
        "fałsz",
        "nie",
        "ложь",
        "нет",
        "falskt",
        "falsk",
        "epätosi",
        "yanliş",
        "yanlış",
        "hayır",
        "hamis",
        "nepravda",
        "b'0'",
        "0x00",
        "\u2610",
        "[]",
        "{}",
        "\u2717",
        "\u2718",
        "\u274c",
    ]
)
# of thumbs: the words of rating widgets, and their signs
_UP = frozenset(
    {"up", "thumbs up", "thumb up", "thumbsup", "upvote", "upvoted", "like", "liked", "positive", "good", "helpful"}
    | {"\U0001f44d", "+1", ":+1:"}
)
_DOWN = frozenset(
    {"down", "thumbs down", "thumb down", "thumbsdown", "downvote", "downvoted", "dislike", "disliked", "negative"}
    | {"bad", "unhelpful", "not helpful", "\U0001f44e", "-1", ":-1:"}
)
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?)? ?(Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
)
# what databases and programs write where there is no time
_NO_TIMES = ("0000-00-00", "0001-01-01", "1900-01-00")
_MONTHS = {
    name: number
    for number, names in enumerate(
        ["jan january", "feb february", "mar march", "apr april", "may", "jun june", "jul july", "aug august"]
        + ["sep sept september", "oct october", "nov november", "dec december"],
        start=1,
    )
    for name in names.split()
}
_OF_DAY = r"(\d{1,2}:\d{2})(:\d{2})?(?:[.,](\d{1,9}))?(?: ?([AaPp][Mm]))? ?(Z|UTC|GMT|[+-]\d{2}:?\d{2})?"
# Kibana ("Nov 27, 2026 @ 10:00:00.000"), SQL Server ("Nov 27 2026 10:00AM"); mail, HTTP and web servers
_MONTH_FIRST = re.compile(rf"([A-Za-z]{{3,9}})\.? +(\d{{1,2}}),? +(\d{{4}}),?(?: @)? +{_OF_DAY}")
_DAY_FIRST = re.compile(rf"(?:[A-Za-z]{{3}}, )?(\d{{1,2}})[ /-]([A-Za-z]{{3,9}})[ /-](\d{{4}})(?: |:){_OF_DAY}")
# what people and spreadsheets write: "26.11.2026 10:00", "11/26/2026, 10:00 AM"
_IN_NUMBERS = re.compile(rf"(\d{{1,2}})([./-])(\d{{1,2}})\2(\d{{4}})(?:,? +|T){_OF_DAY}")
FIRST_YEAR, LAST_YEAR = 1990, 2100
"""Of a time in a log. Another unit than the one that was named falls outside."""
_PER_SECOND: Mapping[str, int] = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
_DURATION_UNITS = {
    "ms": 0.001, "msec": 0.001, "millisecond": 0.001, "milliseconds": 0.001,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
}  # fmt: skip
_CLOCK = re.compile(r"(?:(\d+) days? )?(\d{1,2}):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)")
_PARTS = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def is_missing(value: Any) -> bool:
    r"""Whether a cell says nothing: empty, `\N`, `NULL`, `NaN`, `<NA>`, `#N/A`, `-`, ..."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().lower() in _MISSING


def is_absent(value: Any) -> bool:
    r"""Whether a cell of texts holds none: empty, or exactly `\N`, `NULL`, `NaN`, ... "none" and "-" are texts."""
    if isinstance(value, str):
        return value.strip() in _ABSENT
    return is_missing(value)


def as_flag(name: str, value: Any, *, counts: bool = False) -> bool | None:
    """Yes, no, or None where the cell says nothing.

    counts: the column may also say how often (0, 1, 2, ...), or when (a date): what happened at some time happened.

    Raises:
        InputError: any other value; `name` says whose.
    """
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (list, tuple, dict)) and not value:
        return False
    word = _word(value)
    if word in _YES or word in _NO:
        return word in _YES
    number = _number(value)
    if number in (0.0, 1.0) or (counts and number >= 0 and number == int(number)):
        return number > 0
    happened = _happened(value) if counts else None
    if happened is not None:
        return happened
    also = ", a count or a time" if counts else ""
    raise InputError(f"{name} is {brief(value)}, expected yes or no (true/false, t/f, 1/0, yes/no{also}) or nothing")


def as_vote(name: str, value: Any, *, yes: bool = True, no: bool | None = None) -> bool | None:
    """A thumb: True is up, False is down, None is no vote.

    yes, no: what a plain yes (true, 1) and a plain no (false, no) say. As a 0 is "no vote" to some and "down" to
    others, it is refused where a plain no is a vote.

    Raises:
        InputError: any other value; `name` says whose.
    """
    word = _word(value)
    # without skin colours
    spaced = re.sub("[\\s_-]+", " ", re.sub("[\U0001f3fb-\U0001f3ff]", "", word)).strip()
    if word in _UP or spaced in _UP:
        return True
    number = _number(value)
    if word in _DOWN or spaced in _DOWN or number == -1.0:
        return False
    expected = f"{name} is {brief(value)}, expected a vote (up/down, like/dislike, 1/-1, yes/no)"
    if no is not None and number == 0.0:
        raise InputError(f"{expected}: 0 is no vote to some and a thumb down to others, write which")
    try:
        flag = as_flag(name, value)
    except InputError as error:
        raise InputError(expected) from error
    return None if flag is None else yes if flag else no


def as_rank(name: str, value: Any, *, first: int = 1) -> int:
    """A place in a ranking as a whole number from 1; `first` is what the file calls the first place, 0 or 1.

    Raises:
        InputError: anything else, a broken number (2.7) among them; `name` says whose.
    """
    number = _number(value)
    if not (number >= first and number == int(number) and number < 2**31 - 1):
        raise InputError(f"{name} is {brief(value)}, expected a rank: a whole number from {first}")
    return int(number) - first + 1


def as_amount(name: str, value: Any) -> float:
    """A finite number, also one with a decimal comma, as European programs write it: "0,87", "1,5".

    Raises:
        InputError: anything else. "1,234" too: it is a thousand to some and one and a bit to others.
    """
    number = _number(value)
    if math.isnan(number) and isinstance(value, str):
        found = re.fullmatch(r"([+-]?)([0-9]+),([0-9]+)", value.strip())
        if found is not None:
            _, whole, part = found.groups()
            if len(part) == 3 and len(whole) <= 3 and not whole.startswith("0"):
                raise InputError(
                    f"{name} is {brief(value)}, in which the comma may part thousands or decimals: write a point"
                )
            number = number_in(value.strip().replace(",", "."))
    if math.isnan(number):
        raise InputError(f"{name} is {brief(value)}, expected a finite number")
    return number


def as_seconds(name: str, value: Any, *, unit: str = "seconds") -> float:
    """A length of time in seconds. A bare number is in `unit`; "12s", "850 ms", "1m30s" and "00:01:30" say theirs.

    Raises:
        InputError: anything else, a negative length, and "01:30", which may be minutes or hours; `name` says whose.
    """
    text = value.strip() if isinstance(value, str) else ""
    seconds = math.nan
    if (clock := _CLOCK.fullmatch(text)) is not None:
        days, hours, minutes, rest = clock.groups()
        seconds = int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(rest)
    elif (found := re.fullmatch(r"([0-9.,]+) ?([a-z]+)", text.lower())) and found[2] in _DURATION_UNITS:
        seconds = as_amount(name, found[1]) * _DURATION_UNITS[found[2]]
    elif text and (spelled := _PARTS.fullmatch(text.lower().removeprefix("pt"))) and any(spelled.groups()):
        hours, minutes, rest = spelled.groups()
        seconds = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0)
        if minutes and not hours and rest is None and not text.upper().startswith("PT"):
            seconds = math.nan  # "5m": minutes to some, metres or months to others
    else:
        try:
            seconds = as_amount(name, value) / _PER_SECOND[unit]
        except InputError as error:
            if "comma" in str(error):
                raise
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(
            f"{name} is {brief(value)}, expected {unit} of at least 0, or a length such as 12s or 00:01:30"
        )
    return seconds


def as_zone(name: str, value: str) -> tzinfo:
    """A time zone: "UTC", an offset such as "+02:00", or a name such as "Europe/Berlin".

    Raises:
        InputError: this machine knows no such zone.
    """
    if value in ("UTC", "Z"):
        return UTC
    found = re.fullmatch(r"([+-])(\d{2}):?(\d{2})", value)
    try:
        if found is not None:
            offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
            return timezone(-offset if found[1] == "-" else offset)
        return ZoneInfo(value)
    # an unknown zone is a KeyError; odd names are others
    except (KeyError, ValueError, OSError) as error:
        raise InputError(f"{name} is {brief(value)}, expected UTC, an offset such as +02:00 or a zone") from error


def as_time(name: str, value: Any, *, form: TimeFormat = "iso", zone: tzinfo | None = None) -> datetime:
    """The moment a cell names, in UTC. `form` is how the file writes it; `zone` is that of times that name none.

    "day-first" and "month-first" say what "03/04/2026 10:00" is; times in ISO are read beside.

    Raises:
        InputError: anything else; no zone anywhere, an hour that a change of clocks skips or repeats, a year before
            1990 or from 2100 on, which is a sign of another unit; `name` says whose.
    """
    if form in ("day-first", "month-first") and isinstance(value, str):
        value = _in_order(value.strip(), day_first=form == "day-first")
    moment = _iso_time(name, value, zone) if form in WITH_ZONE else _since_1970(name, value, form)
    if not FIRST_YEAR <= moment.year < LAST_YEAR:
        raise InputError(
            f"{name} is {brief(value)}, a time of the year {moment.year}: expected one from {FIRST_YEAR} on and before "
            f"{LAST_YEAR}"
        )
    return moment


def _iso_time(name: str, value: Any, zone: tzinfo | None) -> datetime:
    if isinstance(value, datetime):
        moment = value
    else:
        text = _with_dashes(value.strip()) if isinstance(value, str) else ""
        found = _TIME.fullmatch(text)
        if found is None or found[2] is None:
            raise InputError(f"{name} is {brief(value)}, {_way_out_of(value, found)}")
        day, minutes, seconds, fraction, offset = found.groups()
        try:
            moment = datetime.fromisoformat(f"{day}T{minutes}{seconds or ':00'}.{(fraction or '')[:6]:0<6}")
            if offset is not None and offset[0] in "+-":
                digits = offset[1:].replace(":", "")
                moment = moment.replace(tzinfo=as_zone(name, f"{offset[0]}{digits[:2]}:{digits[2:] or '00'}"))
            elif offset is not None:
                moment = moment.replace(tzinfo=UTC)
        except ValueError as error:
            raise InputError(f"{name} is {brief(value)}, which no calendar or clock has") from error
    if moment.tzinfo is None:
        if zone is None:
            raise InputError(
                f"{name} is {brief(value)}, a time without a zone: write one (+00:00), or say "
                'zone="UTC" (--timezone UTC)'
            )
        moment = moment.replace(tzinfo=zone)
        # around a change of clocks: an hour that never was, or one that was twice
        if moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset():
            raise InputError(
                f"{name} is {brief(value)}, which the clocks of {zone} show twice or never: write it with its offset"
            )
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise InputError(f"{name} is {brief(value)}, outside of the calendar in UTC") from error


def _with_dashes(text: str) -> str:
    """The ISO form of a time whose month nobody can mistake: it has its name, or the year stands first."""
    if (year_first := re.match(r"(\d{4})/(\d{2})/(\d{2}) ", text)) is not None:
        return f"{'-'.join(year_first.groups())} {text[11:]}"
    first, then = _MONTH_FIRST.fullmatch(text), _DAY_FIRST.fullmatch(text)
    found = first or then
    if found is None:
        return text
    day, month = (found[2], found[1]) if first else (found[1], found[2])
    number = _MONTHS.get(month.lower())
    of_day = _of_day(*found.groups()[3:])
    return text if number is None or of_day is None else f"{found[3]}-{number:02}-{int(day):02}T{of_day}"


def _in_order(text: str, *, day_first: bool) -> str:
    """The ISO form of a time whose day and month are both numbers."""
    found = _IN_NUMBERS.fullmatch(text)
    of_day = None if found is None else _of_day(*found.groups()[4:])
    if found is None or of_day is None:
        return text
    day, month = (found[1], found[3]) if day_first else (found[3], found[1])
    return f"{found[4]}-{int(month):02}-{int(day):02}T{of_day}"


def _of_day(minutes: str, seconds: str | None, part: str | None, half: str | None, zone: str | None) -> str | None:
    """The ISO form of what `_OF_DAY` finds; None for an hour that no half of a day has."""
    hour, _, minute = minutes.partition(":")
    if half and not 1 <= int(hour) <= 12:
        return None
    of_day = int(hour) % 12 + 12 * (half.lower() == "pm") if half else int(hour)
    return f"{of_day:02}:{minute}{seconds or ''}{f'.{part}' if part else ''}{zone or ''}"


def _way_out_of(value: Any, found: re.Match[str] | None) -> str:
    """What is right instead of a time that cannot be read."""
    expected = "expected an ISO 8601 time with its zone, such as 2026-11-26T10:00:00+00:00"
    if found is not None:
        return f"a day without a time: {expected}"
    number = _number(value)
    if 20_000 <= number < 80_000:
        return f"a number of days, as Excel stores dates: format the column as text, {expected}"
    if number == number:
        fits = [form for form, per in _PER_SECOND.items() if _plausible(number / per)]
        way = f'say at_format="{fits[0]}"' if fits else "say at_format"
        return f"a number: {way}; without it, {expected}"
    numbers = re.match(r"\d{1,2}[./-]\d{1,2}[./-](\d{2,4})\b(.*)", value.strip()) if isinstance(value, str) else None
    if numbers is not None:
        if len(numbers[1]) != 4 or not numbers[2]:
            lack = "a day without a time" if not numbers[2] else "a year in two digits"
            return f"{lack}, in which the day or the month may stand first: {expected}"
        return "in which the day or the month may stand first: say at_format=day-first or at_format=month-first"
    return expected


def _since_1970(name: str, value: Any, form: TimeFormat) -> datetime:
    number = _number(value)
    # Excel shows long numbers as 1.7E+12, which has lost the time of day
    if math.isnan(number) or (isinstance(value, str) and "e" in value.lower()):
        raise InputError(f"{name} is {brief(value)}, expected {form} since 1970 in full digits")
    if not _plausible(number / _PER_SECOND[form]):
        fits = [other for other, per in _PER_SECOND.items() if _plausible(number / per)]
        way = f": as {fits[0]} it would be of {_moment(number / _PER_SECOND[fits[0]]).year}" if fits else ""
        raise InputError(
            f"{name} is {brief(value)}, expected {form} since 1970 of a year from {FIRST_YEAR} on and before "
            f"{LAST_YEAR}{way}"
        )
    # whole numbers are divided exactly, as nanoseconds need more digits than a float has
    whole = int(value) if isinstance(value, (int, np.integer)) else int(number) if number == int(number) else None
    if isinstance(value, str) and re.fullmatch(r"[+]?[0-9]+", value.strip()):
        whole = int(value)
    if whole is not None:
        seconds, rest = divmod(whole, _PER_SECOND[form])
        return _moment(seconds) + timedelta(microseconds=rest * 10**6 // _PER_SECOND[form])
    return _moment(number / _PER_SECOND[form])


def _plausible(seconds: float) -> bool:
    return abs(seconds) < 1e11 and FIRST_YEAR <= _moment(seconds).year < LAST_YEAR


def _moment(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def _happened(value: Any) -> bool | None:
    """What a time says to the question whether something happened; None for what is no time, or no likely one."""
    if isinstance(value, (list, tuple)):
        # one entry per time it happened
        entries = [_happened(entry) if isinstance(entry, (str, date)) else None for entry in value]
        return True if all(entry is True for entry in entries) else None
    if isinstance(value, (datetime, date)):
        year = value.year
    else:
        text = _with_dashes(value.strip()) if isinstance(value, str) else ""
        found = _TIME.fullmatch(text)
        if found is None:
            return None
        if text.startswith(_NO_TIMES):
            return False
        try:
            year = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}{found[3] or ''}").year
        except ValueError:  # no day of the calendar, no hour of the clock
            return None
    return True if FIRST_YEAR <= year < LAST_YEAR else None


def _word(value: Any) -> str:
    """A text in lower case, in whatever width; "" for what is no text."""
    return folded(value.strip()) if isinstance(value, str) and len(value) <= 100 else ""


def _number(value: Any) -> float:
    """The finite number that a cell holds, NaN for any other."""
    if isinstance(value, str):
        return number_in(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return math.nan
    try:
        number = float(value)
    except OverflowError:  # an integer beyond what a float holds
        return math.nan
    return number if math.isfinite(number) else math.nan


_HALF = re.compile("[\ud800-\udfff]")


def whole_signs(text: str) -> str:
    """A text without the halves of signs that JavaScript leaves where it cuts one: no file can hold them."""
    return text if text.isascii() else _HALF.sub("\N{REPLACEMENT CHARACTER}", text)

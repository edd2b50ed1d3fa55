"""The searches of a log that decide are the later ones: no session, and no user, trains and decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from llama_index_embed_plus.training.improvement.held_out import by_time
from qdrant_tools.log import LoggedSearch

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def asked(*of: tuple[str, str], step: timedelta = timedelta(minutes=1)) -> list[LoggedSearch]:
    """One search per session and user, a minute apart."""
    return [
        LoggedSearch(f"s{number:03d}", NOON + number * step, f"query {number}", session=session, user=user)
        for number, (session, user) in enumerate(of)
    ]


def parted(searches, share=0.25):
    apart = by_time(searches, share, counts=lambda search: True)
    return [search.id for search in apart.train], [search.id for search in apart.decide]


def test_a_log_that_knows_no_users_is_parted_by_sessions_alone():
    searches = asked(*[(f"visit {number // 2}", "") for number in range(16)])
    train, decide = parted(searches)
    assert decide == ["s012", "s013", "s014", "s015"] and len(train) == 12


def test_users_who_come_and_go_are_parted_at_a_moment():
    searches = asked(*[(f"visit {number}", f"user {number // 4}") for number in range(16)])
    assert parted(searches, 0.2)[1] == ["s012", "s013", "s014", "s015"]


def test_a_user_who_stays_decides_or_trains_with_all_their_sessions():
    searches = asked(*[(f"visit {number}", f"user {number % 4}") for number in range(16)])
    train, decide = parted(searches)
    assert decide == ["s003", "s007", "s011", "s015"]  # of the user who came last
    assert sorted(train + decide) == [search.id for search in searches]


def test_two_users_of_one_session_are_on_one_side_with_all_their_sessions():
    of = [(f"visit {number}", f"user {number % 8}") for number in range(32)]
    of[6], of[23] = ("shared", "user 6"), ("shared", "user 7")
    train, decide = parted(asked(*of))
    assert decide == [f"s{number:03d}" for number in range(32) if number % 8 in (6, 7)]
    assert len(train) == 24


def test_searches_of_nobody_stay_with_their_session():
    of = [(f"visit {number // 2}", f"user {number // 2}" if number % 2 else "") for number in range(16)]
    assert parted(asked(*of))[1] == ["s012", "s013", "s014", "s015"]


@pytest.mark.parametrize("others", [0, 3])
def test_where_one_user_is_most_of_the_log_sessions_are_parted_and_the_user_is_counted(others):
    of = [(f"visit {number}", "owner") for number in range(20)]
    of += [(f"guest visit {number}", f"guest {number}") for number in range(others)]
    apart = by_time(asked(*of), 0.25, counts=lambda search: True)
    assert len(apart.decide) in (5, 6) and {search.user for search in apart.train} == {"owner"}
    assert (apart.on_both_sides, apart.users) == (1, 1 + others)


def test_the_order_in_which_a_log_gives_its_searches_changes_nothing():
    searches = asked(*[(f"visit {number}", f"user {number * 7 % 5}") for number in range(40)])
    turned = by_time(searches[::-1], 0.3, counts=lambda search: True)
    assert turned == by_time(searches, 0.3, counts=lambda search: True)
    assert turned.on_both_sides == 0 and turned.decide


def test_ten_thousand_sessions_that_hang_together_are_one():
    searches = asked(*[(f"visit {number // 2}", f"user {(number + 1) // 2}") for number in range(20_000)])
    apart = by_time(searches, 0.2, counts=lambda search: True)
    assert len(apart.train) == 16_000 and apart.on_both_sides == 1

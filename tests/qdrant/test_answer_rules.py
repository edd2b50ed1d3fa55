"""What an answer and a thumb say about passages: each rule, what it refuses, and how votes become labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from qdrant_tools.debias import AnswerSettings, Support, labels_from_answers, votes_from_answers
from qdrant_tools.errors import InputError, UsageError
from qdrant_tools.log import Answer, Feedback, LoggedHit, LoggedSearch, Verdict
from qdrant_tools.mining.origins import origins_by_query

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
TEXTS = {
    "cable": "Handbook of the printer. Connect the red cable to the left socket, then press the green button twice.",
    "paper": "Handbook of the printer. Put the paper into the lower tray with the printed side down.",
    "ink": "Handbook of the printer. Cartridges last for about three hundred pages and are replaced in pairs.",
}
GROUNDED = "You connect the red cable to the socket on the left side and press the green button."


def texts(ids):
    return {name: TEXTS[name] for name in ids if name in TEXTS}


def thumb(value=1.0, who="u1", minutes=0, **more):
    return Verdict("thumb", value, NOON + timedelta(minutes=minutes), who=who, **more)


def search(text=GROUNDED, *said, hits=("paper", "cable", "ink"), number=0, query="how is it connected?", **more):
    of_answer = {name: more.pop(name) for name in ("searches", "context", "cited") if name in more}
    answer = Answer(f"t{number}", text, verdicts=said, **of_answer)
    shown = tuple(LoggedHit(name, rank, 0.5) for rank, name in enumerate(hits, start=1))
    return LoggedSearch(f"s{number}", NOON, query, hits=shown, answer=answer, **more)


def labels(*searches, **settings):
    found, _ = labels_from_answers(searches, texts, AnswerSettings(**settings))
    return {(label.query, label.passage_id): round(label.weight, 3) for label in found}


def reasons(*searches, **settings):
    return dict(labels_from_answers(searches, texts, AnswerSettings(**settings))[1].reasons)


# -- what gives a label


def test_a_thumb_up_is_about_the_passage_that_supports_the_answer_and_no_other():
    found, counts = labels_from_answers([search(GROUNDED, thumb())], texts)
    assert [(label.passage_id, label.weight, label.evidence) for label in found] == [
        ("cable", 0.8, "thumb up, support")
    ]
    assert counts.as_row() == {"searches": 1, "labelled": 1, "rules": {"supported": 1}, "reasons": {}}


def test_the_only_passage_of_the_prompt_is_what_the_answer_was_made_from():
    asked = search("Quite another thing altogether, in words of its own.", thumb(), context=("paper",))
    assert labels(asked) == {("how is it connected?", "paper"): 0.8}
    assert labels(search("", thumb(), hits=("ink",))) == {("how is it connected?", "ink"): 0.8}


def test_the_passages_are_those_that_the_model_saw_and_not_those_that_were_found():
    assert labels(search(GROUNDED, thumb(), context=("paper", "ink"))) == {}
    asked = search(GROUNDED, thumb(), hits=("paper", "ink"), context=("cable", "ink"))
    assert labels(asked) == {("how is it connected?", "cable"): 0.8}


def test_a_citation_counts_where_the_passage_supports_the_answer_and_needs_no_thumb():
    assert labels(search(GROUNDED, cited=("cable", "ink"))) == {("how is it connected?", "cable"): 0.6}
    assert labels(search(GROUNDED, cited=("ink",))) == {}
    assert labels(search(GROUNDED, thumb(0), cited=("cable",))) == {}


def test_a_language_models_grade_of_a_passage_counts_from_its_bound_on():
    graded = replace(
        search("", hits=("paper", "cable", "ink")),
        answer=None,
        feedback=tuple(Feedback(n, "judged", v, NOON) for n, v in [("paper", 0.7), ("cable", 0.9), ("ink", 0.0)]),
    )
    assert labels(graded) == {("how is it connected?", "cable"): 0.5}
    assert labels(graded, judged_from=0.6).keys() == {("how is it connected?", name) for name in ("paper", "cable")}


def test_a_judge_who_calls_a_passage_irrelevant_takes_the_other_rules_votes():
    asked = replace(search(GROUNDED, thumb()), feedback=(Feedback("cable", "judged", 0.0, NOON),))
    assert labels(asked) == {} and reasons(asked) == {"a judge calls the passage irrelevant": 1}


def test_what_a_person_says_of_a_passage_goes_before_everything_and_is_the_only_vote_against_one():
    no = Feedback("cable", "rating", 0.0, NOON)
    yes = Feedback("ink", "up", 1.0, NOON)
    asked = replace(search(GROUNDED, thumb()), feedback=(no, yes))
    assert labels(asked) == {("how is it connected?", "cable"): 0.0, ("how is it connected?", "ink"): 1.0}


def test_people_who_disagree_about_a_passage_give_no_label():
    say = [replace(search("", number=i), feedback=(Feedback("ink", "rating", float(i == 0), NOON),)) for i in range(3)]
    assert labels(*say) == {} and reasons(*say) == {"people disagree about a passage": 1}
    with pytest.raises(InputError, match="above the top of the scale"):
        labels(replace(say[0], feedback=(Feedback("ink", "rating", 5.0, NOON),)))


def test_a_reformulation_counts_only_if_it_is_asked_for():
    first = search("Sorry, that is hard to say.", thumb(0), query="it does not go on", session="v1")
    second = replace(search(GROUNDED, thumb(), number=1, session="v1"), at=NOON + timedelta(minutes=2))
    late = replace(second, at=NOON + timedelta(hours=2))
    rules = ("supported", "reformulated")
    assert labels(first, second, rules=rules)[("it does not go on", "cable")] == 0.2
    assert (
        labels(first, second).keys() == {("how is it connected?", "cable")} == labels(first, late, rules=rules).keys()
    )


# -- what gives none


@pytest.mark.parametrize("hits", [("paper", "cable", "ink"), ("cable",)])
def test_a_thumb_down_and_silence_give_no_label_at_all(hits):
    assert labels(search(GROUNDED, thumb(0), hits=hits)) == labels(search(GROUNDED, hits=hits)) == {}
    assert reasons(search(GROUNDED, thumb(0), hits=hits)) == {"thumb down": 1}
    assert reasons(search(GROUNDED, hits=hits)) == {"nobody said anything": 1}


def test_a_later_thumb_down_of_one_person_takes_the_up_away_and_an_earlier_one_does_not():
    assert labels(search(GROUNDED, thumb(), thumb(0, minutes=1, name="again"))) == {}
    assert labels(search(GROUNDED, thumb(0), thumb(minutes=1, name="again"))) != {}
    assert labels(search(GROUNDED, thumb(), thumb(0, name="at once"))) == {}, "of one moment the down counts"


def test_two_people_who_disagree_about_an_answer_give_nothing():
    asked = search(GROUNDED, thumb(), thumb(0, who="u2"), cited=("cable",))
    assert labels(asked) == {} and reasons(asked) == {"people disagree": 1}


def test_a_thumb_of_a_program_or_a_model_is_nobodys():
    assert labels(search(GROUNDED, thumb(by="judge"), thumb(by="code", who="u2"))) == {}


def test_an_answer_of_several_searches_is_ambiguous_and_counted():
    asked = search(GROUNDED, thumb(), searches=2)
    assert labels(asked) == {} and reasons(asked) == {"several searches behind one answer": 1}
    assert labels(asked, ambiguous=True) == {("how is it connected?", "cable"): 0.8}
    direct = replace(asked, feedback=(Feedback("ink", "rating", 1.0, NOON),))
    assert labels(direct) == {("how is it connected?", "ink"): 1.0}, "a label of a passage is not"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, the provided context does not mention that.", "the answer is a refusal"),
        ("", "the answer's text is not known"),
        ("Yes.", "the answer says no more than the query, yes or no"),
        ("It is connected.", "the answer says no more than the query, yes or no"),
        ("Handbook of the printer", "the answer says no more than the query, yes or no"),
        ("Elephants remember faces for many decades.", "no passage supports the answer more than others"),
    ],
)
def test_an_answer_that_says_too_little_gives_no_label_and_says_why(text, reason):
    asked = search(text, thumb(), query="is it connected to the printer handbook?")
    assert labels(asked) == {} and reasons(asked) == {reason: 1}


def test_a_refusal_with_one_passage_is_no_label_either():
    assert labels(search("I don't know.", thumb(), hits=("cable",))) == {}


def test_passages_that_are_gone_and_queries_that_are_redacted_give_none():
    assert reasons(search(GROUNDED, thumb(), hits=("x", "y"))) == {"its passages are not in the collection": 1}
    assert reasons(search(GROUNDED, thumb(), query="redacted:", redacted=True)) == {"the query is redacted": 1}
    assert reasons(LoggedSearch("s", NOON, "q")) == {"no answer": 1}


# -- who is behind it


def test_one_query_is_one_vote_of_a_user_and_several_users_raise_the_weight():
    once = [search(GROUNDED, thumb(), number=i, query=q) for i, q in enumerate(["How?", "how", "HOW?"])]
    assert labels(*once) == {("How?", "cable"): 0.8}
    people = [search(GROUNDED, thumb(who=f"u{i}"), number=i) for i in range(9)]
    assert labels(*people[:2]) == {("how is it connected?", "cable"): 0.96}
    assert labels(*people) == {("how is it connected?", "cable"): 0.992}, "three are enough"


def test_nobody_knows_whether_people_without_a_name_are_several():
    unknown = [search(GROUNDED, thumb(who=""), number=i) for i in range(5)]
    assert labels(*unknown) == {("how is it connected?", "cable"): 0.8}
    known = [search(GROUNDED, thumb(who=""), number=i, user=f"u{i}") for i in range(2)]
    assert labels(*known) == {("how is it connected?", "cable"): 0.96}


def test_queries_of_a_language_model_are_queries_and_count_for_no_user():
    made = [search(GROUNDED, thumb(who=f"u{i}"), number=i, generated=True) for i in range(3)]
    assert labels(*made) == {("how is it connected?", "cable"): 0.8}


# -- what competes


def both(number=0, who="u1", *, cited=(), names=("cable", "ink"), **more):
    """A liked answer that the passages with these names support."""
    said = " ".join(f"[{name}] it is so" for name in names)
    return search(said, thumb(who=who), number=number, cited=cited, **more)


NAMED = Support(lambda answer, passages: [float(named(text) in answer) for text in passages], 0.5, 0.1)


def named(text):
    return next(f"[{name}]" for name in TEXTS if TEXTS[name] == text)


def weights_of(*searches):
    return {name: weight for (_, name), weight in labels(*searches, support=NAMED).items()}


def test_passages_that_support_one_answer_compete():
    assert weights_of(both(names=("cable",))) == {"cable": 0.8}
    assert weights_of(both()) == {"cable": 0.444, "ink": 0.444}, "4 to 4 to 1"


def test_answers_of_several_people_to_one_query_compete_and_those_to_other_queries_do_not():
    apart = [both(0, "u1", names=("cable",)), both(1, "u2", names=("ink",))]
    assert weights_of(*apart) == {"cable": 0.444, "ink": 0.444}
    most = weights_of(*apart, both(2, "u3", names=("cable",)))
    assert most == {"cable": 0.828, "ink": 0.138}, "24 to 4 to 1"
    assert weights_of(apart[0], replace(apart[1], query="another one")) == {"cable": 0.8, "ink": 0.8}


def test_a_cited_passage_competes_with_its_own_weight():
    silent = replace(both(), answer=replace(both().answer, verdicts=(), cited=("cable", "ink")))
    assert weights_of(silent) == {"cable": 0.375, "ink": 0.375}, "1.5 to 1.5 to 1"


def test_what_was_said_of_a_passage_itself_competes_with_nothing():
    no, grade = Feedback("ink", "rating", 0.0, NOON), Feedback("ink", "judged", 1.0, NOON)
    assert weights_of(replace(both(), feedback=(no,))) == {"cable": 0.8, "ink": 0.0}
    assert weights_of(replace(both(), feedback=(grade,))) == {"cable": 0.444, "ink": 0.5}
    alone = replace(both(names=("cable",)), feedback=(grade,))
    assert weights_of(alone) == {"cable": 0.8, "ink": 0.5}


def test_a_weight_of_1_leaves_no_more_than_it_has():
    found = labels(both(), support=NAMED, weights={"supported": 1.0})
    assert list(found.values()) == [0.5, 0.5]


# -- settings


def test_measured_weights_take_the_place_of_guesses():
    assert labels(search(GROUNDED, thumb()), weights={"supported": 0.9}) == {("how is it connected?", "cable"): 0.9}


def test_a_rule_whose_weight_is_0_makes_no_negatives():
    liked, rated = search(GROUNDED, thumb()), replace(search(), feedback=(Feedback("rating", "ink", NOON, 1.0),))
    assert labels(liked, weights={"supported": 0.0}) == {}
    assert reasons(liked, weights={"supported": 0.0}) == {"the rule has a weight of 0": 1}
    assert labels(rated, weights={"labelled": 0.0}) == {}
    assert labels(liked, rated, weights={"labelled": 0.0}) == {("how is it connected?", "cable"): 0.8}


def test_any_callable_may_judge_support_and_must_give_one_score_for_each_passage():
    def judge(answer, passages):
        return [float("ink" in answer and "Cartridges" in text) for text in passages]

    support = Support(judge, threshold=0.5, margin=0.1)
    assert labels(search("Ink? Yes.", thumb(), query="ink?"), support=support) == {}, "it says nothing"
    asked = search("buy ink for three hundred pages", thumb(), query="q")
    assert labels(asked, support=support) == {("q", "ink"): 0.8}
    for broken in (lambda answer, passages: [1.0], lambda answer, passages: [float("nan")] * len(passages)):
        with pytest.raises(InputError, match="judge of support gave"):
            labels(asked, support=Support(broken, 0.5, 0.1))


def test_settings_that_say_nothing_are_refused():
    for odd in ({"rules": ("thumbs",)}, {"weights": {"supported": 2.0}}, {"top": 0}, {"judged_from": 0.1}):
        with pytest.raises(UsageError):
            AnswerSettings(**odd)
    with pytest.raises(UsageError):
        Support(lambda answer, passages: [], threshold=float("nan"), margin=0.1)


def test_votes_name_the_rule_the_search_and_the_people():
    (vote,) = votes_from_answers([search(GROUNDED, thumb())], texts)
    assert (vote.rule, vote.search, vote.passage_id, vote.voters) == ("supported", "s0", "cable", ("u1",))


def test_labels_say_that_they_favour_what_was_shown():
    found, _ = labels_from_answers([search(GROUNDED, thumb())], texts)
    assert origins_by_query(found)["how is it connected"].evidence == "answers"


def test_texts_are_asked_for_some_hundred_searches_at_a_time():
    asked = []

    def counted(ids):
        asked.append(len(ids))
        return texts(ids)

    searches = (search(GROUNDED, thumb(who=f"u{i}"), number=i, query=f"query {i}") for i in range(600))
    assert len(labels_from_answers(searches, counted)[0]) == 600 and asked == [3, 3, 3]

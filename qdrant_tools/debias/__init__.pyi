from .answer_labels import AnswerCounts, labels_from_answers
from .answer_rules import AnswerSettings, AnswerVote, votes_from_answers
from .click_rules import (
    ClickModel,
    aggregate,
    click_over_no_click_next,
    click_over_skip_above,
    clicked_as_positive,
    clicks,
    fit_click_model,
    inverse_propensity,
    last_click_over_skip_above,
    long_dwell_as_positive,
    rated,
    shown,
    unclicked_as_negative,
)
from .rule_audit import (
    RuleAudit,
    RulePrecision,
    audit_rules,
    read_rule_sheet,
    read_weights,
    write_rule_sheet,
)
from .support import Support, encoder_support, ngram_support
from .teachers import TaughtList, lists_of_rerankers
from .unanswered import Unanswered, is_refusal, queries_without_answer

__all__ = [
    "AnswerCounts",
    "AnswerSettings",
    "AnswerVote",
    "ClickModel",
    "RuleAudit",
    "RulePrecision",
    "Support",
    "TaughtList",
    "Unanswered",
    "aggregate",
    "audit_rules",
    "click_over_no_click_next",
    "click_over_skip_above",
    "clicked_as_positive",
    "clicks",
    "encoder_support",
    "fit_click_model",
    "inverse_propensity",
    "is_refusal",
    "labels_from_answers",
    "last_click_over_skip_above",
    "lists_of_rerankers",
    "long_dwell_as_positive",
    "ngram_support",
    "queries_without_answer",
    "rated",
    "read_rule_sheet",
    "read_weights",
    "shown",
    "unclicked_as_negative",
    "votes_from_answers",
    "write_rule_sheet",
]

from __future__ import annotations

import pytest
from pydantic import ValidationError

from longalign_core.config.evaluation import Candidate, EvaluationConfig
from tests.evaluation_inputs import needle_config


def test_needle_longer_than_the_window_is_refused_before_a_run():
    needle = needle_config(None, lengths=(1000, 4000), haystack="essays")
    with pytest.raises(ValidationError, match=r"prompts of 4000 tokens.*leaves 3072"):
        EvaluationConfig(suites=(needle,), candidate=Candidate(context_tokens=4096, max_tokens=1024))


def test_candidate_whose_reply_fills_the_window_is_refused():
    with pytest.raises(ValidationError, match="no room for a prompt"):
        EvaluationConfig(candidate=Candidate(context_tokens=1024, max_tokens=1024))


def test_scorecard_config_takes_gate_and_notice():
    card = EvaluationConfig(gate=5.0, notice="Read this first.").scorecard("demo")
    assert (card.name, card.gate, card.notice) == ("demo", 5.0, "Read this first.")

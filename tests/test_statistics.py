from __future__ import annotations

import pytest

from longalign_core.evaluation.statistics import estimate_mean, question_scores, t_quantile
from longalign_core.records import Verdict


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.30265), (9, 2.26216), (49, 2.00958), (1000, 1.96234)]
)
def test_t_quantile_equals_the_printed_tables(freedom, quantile):
    assert t_quantile(0.975, freedom) == pytest.approx(quantile, rel=1e-4)


def test_mean_of_a_worked_example():
    # 2, 4, 4, 6: mean 4, standard deviation 1.63299; t(3) 3.18245; margin 3.18245 * 1.63299 / 2 = 2.59847.
    estimate = estimate_mean([2.0, 4.0, 4.0, 6.0], minimum=1, maximum=10)
    assert (estimate.mean, estimate.num_scored, estimate.num_unscored) == (4.0, 4, 0)
    assert (estimate.low, estimate.high) == (pytest.approx(1.40153, abs=1e-3), pytest.approx(6.59847, abs=1e-3))


def test_mean_unscored_questions_are_counted_and_never_numbers():
    with_unscored = estimate_mean([8.0, None, 6.0, None, None], minimum=1, maximum=10)
    assert (with_unscored.mean, with_unscored.num_scored, with_unscored.num_unscored) == (7.0, 2, 3)
    without = estimate_mean([8.0, 6.0], minimum=1, maximum=10)
    assert (with_unscored.low, with_unscored.high) == (without.low, without.high)


@pytest.mark.parametrize(("scores", "mean"), [([], None), ([None, None], None), ([3.0], 3.0), ([3.0, None], 3.0)])
def test_mean_below_two_scored_questions_has_no_interval(scores, mean):
    estimate = estimate_mean(scores, minimum=1, maximum=10)
    assert (estimate.mean, estimate.low, estimate.high) == (mean, None, None)
    assert "No interval" in estimate.coverage


def test_interval_stays_on_the_scale():
    estimate = estimate_mean([0.0, 1.0, 1.0], minimum=0, maximum=1)
    assert (estimate.low, estimate.high) == (0.0, 1.0)


def test_question_score_is_the_mean_of_its_scored_verdicts():
    verdicts = [
        Verdict(question_id="a", repeat=0, score=4.0, judge="j"),
        Verdict(question_id="a", repeat=1, score=7.0, judge="j"),
        Verdict(question_id="b", repeat=0, score=9.0, judge="j"),
        Verdict(question_id="b", repeat=1, score=None, judge="j", unscored="no verdict"),
        Verdict(question_id="c", repeat=0, score=None, judge="j", unscored="no verdict"),
    ]
    assert question_scores(verdicts) == {"a": 5.5, "b": 9.0, "c": None}

"""What calls cost by the way they are sent, against figures worked out by hand."""

from __future__ import annotations

import pytest

from longalign_core.chat_client.prices import ModelPrices
from longalign_core.run_costs import Calls, Mode, cost_of

# Input is one dollar a million tokens, so a text of a million tokens is one uncached pass. A cache write costs 1.25
# of that (2.0 for an hour's), a read 0.1, and a batch half.
UNITS = ModelPrices(
    input=1.0,
    output=5.0,
    cached_input=0.1,
    cache_write=1.25,
    batch_input=0.5,
    batch_output=2.5,
    batch_cached_input=0.05,
    batch_cache_write=1.0,
    seen="here",
)
PASS = 1_000_000


def passes(calls_per_group: int, mode: Mode, prices: ModelPrices = UNITS, *, num_groups: float = 1) -> float:
    work = Calls(
        num_groups=num_groups,
        calls_per_group=calls_per_group,
        shared_tokens=PASS,
        own_tokens=0,
        reply_tokens=0,
        most_reply_tokens=0,
    )
    cost = cost_of([work], prices, mode)
    assert cost is not None
    assert cost.dollars == cost.at_most
    return cost.dollars


@pytest.mark.parametrize(("mode", "units"), [("online", 2.0), ("cached", 1.35), ("batch", 1.0), ("batch_cached", 1.05)])
def test_cost_of_question_and_answer_is_the_known_number_of_passes(mode, units):
    assert passes(2, mode) == pytest.approx(units, rel=1e-12)
    assert passes(2, mode, num_groups=7.5) == pytest.approx(7.5 * units, rel=1e-12)


def test_cost_of_four_calls_a_document_is_less_with_the_cache_than_in_batches():
    assert passes(4, "cached") == pytest.approx(1.55, rel=1e-12)
    assert passes(4, "cached") < passes(4, "batch") < passes(4, "online")
    assert passes(2, "batch") < passes(2, "cached")


def test_cost_where_a_cache_write_has_no_price_of_its_own_is_that_of_input():
    prices = ModelPrices(input=1.0, output=5.0, cached_input=0.5, seen="here")
    assert passes(2, "cached", prices) == pytest.approx(1.5, rel=1e-12)


@pytest.mark.parametrize("mode", ["cached", "batch", "batch_cached"])
def test_cost_of_a_way_without_prices_is_unknown(mode):
    work = Calls(num_groups=1, calls_per_group=2, shared_tokens=9, own_tokens=1, reply_tokens=1, most_reply_tokens=2)
    assert cost_of([work], ModelPrices(input=1.0, output=5.0, seen="here"), mode) is None


def test_cost_counts_requests_and_replies_of_every_call():
    work = Calls(
        num_groups=10, calls_per_group=2, shared_tokens=1000, own_tokens=100, reply_tokens=40, most_reply_tokens=200
    )
    online = cost_of([work, work], UNITS, "online")
    assert online is not None
    # Two pieces of work, 20 calls each.
    assert online.dollars == pytest.approx(40 * (1100 * 1.0 + 40 * 5.0) / 1e6, rel=1e-12)
    assert online.at_most == pytest.approx(40 * (1100 * 1.0 + 200 * 5.0) / 1e6, rel=1e-12)
    cached = cost_of([work], UNITS, "cached")
    assert cached is not None
    assert cached.dollars == pytest.approx((10 * 1000 * 1.35 + 20 * 100 * 1.0 + 20 * 40 * 5.0) / 1e6, rel=1e-12)
    assert (work.num_calls, work.tokens) == (20, 20 * 1140)

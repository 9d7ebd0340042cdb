"""Price files: what calls cost by them, and every mistake in one said in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from longalign_core.chat_client.prices import SHIPPED, ModelPrices, load_prices
from longalign_core.errors import InputError

HEAD = "schema: 1\ndate: 2026-01-31\nmodels:\n"


def file_of(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def prices_of(**changes: object) -> ModelPrices:
    return ModelPrices.model_validate({"input": 2.0, "output": 10.0, "seen": "here", **changes})


def test_shipped_prices_name_their_date_and_where_each_figure_was_seen():
    prices = load_prices()
    assert len(prices.date) == 10
    assert all(one.seen for one in prices.models.values())
    # The paper's generator and judge.
    assert {"claude-2.1", "gpt-4"} <= prices.models.keys()


def test_shipped_prices_lie_in_the_package_so_the_wheel_holds_them():
    assert SHIPPED.parent.name == "chat_client"
    assert SHIPPED.is_file()


def test_shipped_prices_are_ordered_as_providers_charge():
    for name, one in load_prices().models.items():
        assert (one.cached_input or 0) < one.input < one.output, name
        assert one.batch_input is None or one.batch_input < one.input, name
        assert one.cache_write is None or one.input < one.cache_write, name


def test_dollars_of_a_call_count_each_kind_of_token_at_its_price():
    prices = prices_of(cached_input=0.2, cache_write=2.5, batch_input=1.0, batch_output=5.0)
    # 600 plain, 300 cached, 100 written, 50 of reply.
    dollars = prices.dollars(1000, 50, cached_tokens=300, written_tokens=100, batch=False)
    assert dollars == pytest.approx((600 * 2.0 + 300 * 0.2 + 100 * 2.5 + 50 * 10.0) / 1e6, rel=1e-12)
    assert prices.dollars(1000, 50, batch=True) == pytest.approx((1000 * 1.0 + 50 * 5.0) / 1e6, rel=1e-12)


def test_dollars_without_a_price_for_cached_or_batch_tokens_are_never_less_than_the_provider_may_ask():
    prices = prices_of()
    assert prices.dollars(1000, 0, cached_tokens=900, batch=False) == prices.dollars(1000, 0, batch=False)
    assert prices.dollars(1000, 50, batch=True) == prices.dollars(1000, 50, batch=False)
    assert not prices.has_batch


def test_most_dollars_take_the_dearest_price_of_the_prompt():
    prices = prices_of(cached_input=0.2, cache_write=2.5)
    assert prices.most_dollars(1000, 10, batch=False) == pytest.approx((1000 * 2.5 + 10 * 10.0) / 1e6, rel=1e-12)
    # No batch price was seen: what is known of online calls stands in for it.
    assert prices.most_dollars(1000, 10, batch=True) == prices.most_dollars(1000, 10, batch=False)


def test_dollars_of_a_prompt_beyond_the_limit_are_those_of_long_prompts():
    long = {"above_tokens": 1000, "input": 4.0, "output": 15.0, "cached_input": 0.4}
    prices = prices_of(cached_input=0.2, batch_input=1.0, batch_output=5.0, long_prompt=long)
    assert prices.dollars(1000, 1, batch=False) == pytest.approx((1000 * 2.0 + 10.0) / 1e6, rel=1e-12)
    assert prices.dollars(1001, 1, cached_tokens=1, batch=False) == pytest.approx((4000 + 0.4 + 15) / 1e6, rel=1e-12)
    assert prices.dollars(1001, 1, batch=True) == prices.dollars(1001, 1, batch=False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("m: {input: -1, output: 2, seen: x}", "models.m.input: input should be greater than or equal to 0, found -1"),
        ("m: {input: .nan, output: 2, seen: x}", "models.m.input: input should be a finite number"),
        ("m: {input: .inf, output: 2, seen: x}", "models.m.input: input should be a finite number"),
        ("m: {input: '3', output: 2, seen: x}", "models.m.input: input should be a valid number, found '3'"),
        ("m: {input: true, output: 2, seen: x}", "models.m.input: input should be a valid number"),
        ("m: {input: cheap, output: 2, seen: x}", "models.m.input: input should be a valid number, found 'cheap'"),
        ("m: {input: 1, inptu: 2, output: 2, seen: x}", "models.m.inptu is not a key; allowed here: input, output"),
        ("m: {input: 1, seen: x}", "models.m.output is missing"),
        ("m: {input: 1, output: 1}", "models.m.seen is missing"),
        ("m: {input: 1, output: 1, seen: x, long_prompt: {above: 3}}", "long_prompt.above"),
        ("m: {input: 1, output: 1, seen: x, context_tokens: 0}", "models.m.context_tokens"),
        ("m: 3", "models.m"),
    ],
)
def test_price_file_with_a_wrong_value_says_which_in_one_sentence(tmp_path, line, said):
    path = file_of(tmp_path, f"{HEAD}  {line}\n")
    with pytest.raises(InputError) as error:
        load_prices(path)
    assert said in str(error.value)
    assert "mine.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema: 2\ndate: 2026-01-31\nmodels: {}", "reads schema 1"),
        ("schema: 1\nmodels: {}", "date is missing"),
        ("schema: 1\ndate: soon\nmodels: {}", "date:"),
        ("schema: 1\ndate: 2026-01-31\nmodel: {}", "models is missing"),
        ("prices", "holds no prices"),
        ("[", "is not YAML"),
        (f"{HEAD}  m: {{input: 1, output: 1, seen: x}}\n  m: {{input: 2, output: 1, seen: x}}", "given twice"),
    ],
)
def test_price_file_of_another_form_is_refused(tmp_path, text, said):
    with pytest.raises(InputError, match=r"mine\.yaml") as error:
        load_prices(file_of(tmp_path, text))
    assert said in str(error.value)


def test_price_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"there is no price file .*gone\.yaml; correct LONGALIGN_PRICES"):
        load_prices(tmp_path / "gone.yaml")


def test_prices_of_a_model_that_is_nearly_named_are_not_taken_but_the_name_is_told(tmp_path):
    path = file_of(tmp_path, f"{HEAD}  some-model-4-5: {{input: 1, output: 2, seen: x}}\n")
    prices = load_prices(path)
    assert prices.of("some-model-4.5") is None
    with pytest.raises(InputError) as error:
        prices.require("some-model-4.5")
    for part in ("mine.yaml", "some-model-4-5", "match exactly", "LONGALIGN_PRICES", "LONGALIGN_BUDGET_TOKENS"):
        assert part in str(error.value)
    assert prices.require("some-model-4-5").output == 2.0

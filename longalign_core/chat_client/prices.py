"""What models cost: a file of facts with their date and where each was seen; what is not in it is unknown."""

from __future__ import annotations

import datetime
import difflib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from longalign_core.config.loading import UniqueKeys
from longalign_core.errors import InputError

SHIPPED = Path(__file__).with_name("prices.yaml")
_MILLION = 1_000_000

Dollars = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
"""Per million tokens."""


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LongPromptPrices(_Facts):
    """What a call costs whose prompt is longer than a limit, all of its tokens."""

    above_tokens: int = Field(strict=True, ge=1, description="A prompt of more tokens costs this.")
    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None


class ModelPrices(_Facts):
    """One model's prices; None is unknown.

    A call is only as cheap as is known: without a price for cached, written or batch tokens, they count at the
    price that they would have had otherwise, or at the price of input.
    """

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    cache_write: Dollars | None = None
    batch_input: Dollars | None = None
    batch_output: Dollars | None = None
    batch_cached_input: Dollars | None = None
    batch_cache_write: Dollars | None = None
    long_prompt: LongPromptPrices | None = None
    context_tokens: int | None = Field(default=None, strict=True, ge=1, description="Window, prompt and reply.")
    seen: str = Field(min_length=1, description="Where and when the figures were seen.")

    @property
    def has_batch(self) -> bool:
        """Whether both batch prices are known."""
        return self.batch_input is not None and self.batch_output is not None

    def dollars(
        self, prompt_tokens: int, reply_tokens: int, *, cached_tokens: int = 0, written_tokens: int = 0, batch: bool
    ) -> float:
        """What a call costs.

        Args:
            prompt_tokens: All of the prompt, cached and written ones included.
            reply_tokens: Of the reply.
            cached_tokens: Of the prompt's, those read from the provider's cache.
            written_tokens: Of the prompt's, those written to it.
            batch: Whether it goes through the batch interface.
        """
        plain, reply, cached, written = self._in_force(prompt_tokens, batch)
        others = max(prompt_tokens - cached_tokens - written_tokens, 0)
        total = others * plain + cached_tokens * cached + written_tokens * written + reply_tokens * reply
        return total / _MILLION

    def most_dollars(self, prompt_tokens: int, reply_tokens: int, *, batch: bool) -> float:
        """What a call costs at most: its whole prompt at the dearest of the prices that may apply."""
        plain, reply, cached, written = self._in_force(prompt_tokens, batch)
        return (prompt_tokens * max(plain, cached, written) + reply_tokens * reply) / _MILLION

    def _in_force(self, prompt_tokens: int, batch: bool) -> tuple[float, float, float, float]:
        """Input, output, cached input and cache write."""
        long = self.long_prompt
        if long is not None and prompt_tokens > long.above_tokens:
            # No batch price of long prompts was ever seen: the online one is surely not less.
            return long.input, long.output, _known(long.cached_input, long.input), _known(long.cache_write, long.input)
        if not batch:
            return self.input, self.output, _known(self.cached_input, self.input), _known(self.cache_write, self.input)
        plain = _known(self.batch_input, self.input)
        written = _known(self.batch_cache_write, _known(self.cache_write, plain))
        return plain, _known(self.batch_output, self.output), _known(self.batch_cached_input, plain), written


FREE = ModelPrices(input=0.0, output=0.0, seen="a model served on this machine costs no dollars")


def _known(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


class _Content(_Facts):
    version: Literal[1] = Field(alias="schema")
    date: datetime.date
    notes: tuple[str, ...] = ()
    models: dict[str, ModelPrices]


class PriceList:
    """The prices of one file.

    Attributes:
        name: The file, for people.
        date: When its figures were put together, ISO 8601.
        models: Prices by model name. Names match exactly, as requests carry them.
    """

    def __init__(self, name: str, date: str, models: dict[str, ModelPrices]) -> None:
        self.name = name
        self.date = date
        self.models = models

    def of(self, model: str) -> ModelPrices | None:
        """A model's prices; None when the file does not have it under exactly this name."""
        return self.models.get(model)

    def require(self, model: str) -> ModelPrices:
        """A model's prices, where a cap in dollars needs them.

        Raises:
            InputError: The file does not have the model; says which names are near and what to add.
        """
        if (found := self.of(model)) is not None:
            return found
        near = difflib.get_close_matches(model, self.models, n=3, cutoff=0.5)
        like = f"; near to it are {', '.join(near)}, but names match exactly" if near else "; names match exactly"
        raise InputError(
            f"LONGALIGN_BUDGET_DOLLARS is set, but {self.name} has no price of model {model!r}{like}: copy the file, "
            f"add {model!r} with input, output and seen, and name the copy in LONGALIGN_PRICES, or cap tokens instead "
            "with LONGALIGN_BUDGET_TOKENS"
        )


def load_prices(path: Path | None = None) -> PriceList:
    """Read a price file.

    Args:
        path: The user's own, from LONGALIGN_PRICES; None is the one that comes with the package.

    Raises:
        InputError: It is not there, not YAML, or a value in it is wrong.
    """
    file = path or SHIPPED
    name = file.name if path is None else str(path)
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=UniqueKeys)  # noqa: S506 -- a SafeLoader
    except FileNotFoundError:
        raise InputError(f"there is no price file {name}; correct LONGALIGN_PRICES, or unset it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the price file {name} ({type(error).__name__}); make it readable UTF-8"
        ) from None
    except yaml.YAMLError as error:
        raise InputError(f"the price file {name} is not YAML: {' '.join(str(error).split())}; correct it") from None
    if not isinstance(raw, dict):
        raise InputError(f"the price file {name} holds no prices; it needs schema, date and models")
    try:
        content = _Content.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"the price file {name}: {_sentence(error.errors(include_url=False)[0])}") from None
    return PriceList(name, content.date.isoformat(), content.models)


def _sentence(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        inside = LongPromptPrices if "long_prompt" in error["loc"][:-1] else ModelPrices
        allowed = [
            field.alias or key for key, field in (inside if len(error["loc"]) > 1 else _Content).model_fields.items()
        ]
        return f"{place} is not a key; allowed here: {', '.join(allowed)}"
    if error["type"] == "missing":
        return f"{place} is missing; add it"
    if error["type"] == "literal_error":
        return f"{place} is {error['input']!r}; this version of longalign reads schema 1"
    found = error["input"]
    shown = f", found {found!r}" if isinstance(found, str | int | float) else ""
    wanted = (
        "; prices are plain numbers of dollars per million tokens, 0 or more" if error["loc"][0] == "models" else ""
    )
    return f"{place}: {error['msg'].lower()}{shown}{wanted}"

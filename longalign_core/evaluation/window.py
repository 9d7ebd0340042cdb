"""The candidate's window: prompts counted in its own tokens, chat template included, and fitted to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from longalign_core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPrompt:
    """A prompt that the window holds.

    Attributes:
        text: The user's message.
        num_tokens: Of the whole prompt, chat template included.
        num_cut_tokens: Taken out of its middle; 0 when it fits as it is.
    """

    text: str
    num_tokens: int
    num_cut_tokens: int


class PromptWindow:
    """Counts prompts as the served model will see them.

    Attributes:
        max_prompt_tokens: The window less the longest reply.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_prompt_tokens: int) -> None:
        """Make a window.

        Raises:
            DataError: The tokenizer has no chat template, or cannot say where its tokens stand in a text.
        """
        if tokenizer.chat_template is None:
            raise DataError(
                "the checkpoint's tokenizer has no chat template; save it with the template it was trained with"
            )
        if not tokenizer.is_fast:
            raise DataError("the checkpoint's tokenizer has no tokenizer.json; convert it to a fast tokenizer first")
        self.max_prompt_tokens = max_prompt_tokens
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, checkpoint: Path, max_prompt_tokens: int) -> PromptWindow:
        """The window of the model in `checkpoint`.

        Raises:
            DataError: The folder holds no tokenizer, or one without a chat template.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise DataError(
                f"no tokenizer can be loaded from {checkpoint.name} ({str(error).splitlines()[0]}); "
                "a checkpoint folder holds one beside its weights"
            ) from error
        return cls(tokenizer, max_prompt_tokens)

    def count(self, message: str) -> int:
        """Tokens of the prompt whose only turn is this user message."""
        turns = [{"role": "user", "content": message}]
        prompt = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(self._encode(str(prompt))["input_ids"])

    def spans(self, text: str) -> NDArray[np.int64]:
        """First and one-past-last character of each token of a text. Shape (T, 2)."""
        spans = self._encode(text, return_offsets_mapping=True)["offset_mapping"]
        return np.array(spans, dtype=np.int64).reshape(-1, 2)

    def fit(self, message: str) -> FittedPrompt:
        """Take so much out of a message's middle that its prompt fits.

        What stays is the text's own beginning and end, in equal parts of tokens. The prompt is counted
        again after the cut, because tokens may form anew where the halves meet.

        Raises:
            DataError: The window does not hold even an empty message.
        """
        num_tokens = total = self.count(message)
        if total <= self.max_prompt_tokens:
            return FittedPrompt(text=message, num_tokens=total, num_cut_tokens=0)
        spans = self.spans(message)
        num_kept, shortened = len(spans), message
        while num_tokens > self.max_prompt_tokens:
            num_kept -= num_tokens - self.max_prompt_tokens
            if num_kept < 0:
                raise DataError(
                    f"the chat template alone takes more than the {self.max_prompt_tokens} tokens left for a prompt; "
                    "raise candidate.context_tokens or lower candidate.max_tokens"
                )
            shortened = _without_middle(message, spans, num_kept)
            num_tokens = self.count(shortened)
        return FittedPrompt(text=shortened, num_tokens=num_tokens, num_cut_tokens=total - num_tokens)

    def _encode(self, text: str, **options: bool) -> Any:
        # verbose=False: texts longer than the model's window are expected here, not worth a warning each.
        return self._tokenizer(text, add_special_tokens=False, verbose=False, **options)


def _without_middle(text: str, spans: NDArray[np.int64], num_kept: int) -> str:
    head, tail = (num_kept + 1) // 2, num_kept // 2
    end = int(spans[head - 1, 1]) if head else 0
    start = int(spans[-tail, 0]) if tail else len(text)
    return text[:end] + text[max(start, end) :]

from __future__ import annotations

import random

import pytest
from transformers import AutoTokenizer

from longalign_core.errors import DataError
from longalign_core.evaluation.window import PromptWindow
from tests.tiny_model import SENTENCES, tiny_tokenizer

TEXT = " ".join(random.Random(0).choices(SENTENCES, k=60))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_count_is_what_a_server_encodes(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    turns = [{"role": "user", "content": TEXT}]
    encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert PromptWindow.open(checkpoint, 100).count(TEXT) == len(encoded)


def test_fit_prompt_that_fits_stays_whole(checkpoint):
    total = PromptWindow.open(checkpoint, 10_000).count(TEXT)
    fitted = PromptWindow.open(checkpoint, total).fit(TEXT)
    assert (fitted.text, fitted.num_tokens, fitted.num_cut_tokens) == (TEXT, total, 0)


@pytest.mark.parametrize("budget", [20, 21, 64, 333, 1000])
def test_fit_prompt_too_long_loses_its_middle_and_fills_the_budget(checkpoint, budget):
    window = PromptWindow.open(checkpoint, budget)
    fitted = window.fit(TEXT)
    assert budget - 3 <= fitted.num_tokens == window.count(fitted.text) <= budget
    assert fitted.num_cut_tokens == window.count(TEXT) - fitted.num_tokens
    half = next(at for at in range(len(fitted.text) + 1) if TEXT.endswith(fitted.text[at:]))
    assert TEXT.startswith(fitted.text[:half])
    head, tail = (len(window.spans(part)) for part in (fitted.text[:half], fitted.text[half:]))
    assert abs(head - tail) <= max(4, budget // 20)


def test_fit_window_smaller_than_the_template_is_refused(checkpoint):
    with pytest.raises(DataError, match="context_tokens"):
        PromptWindow.open(checkpoint, 3).fit(TEXT)


def test_window_tokenizer_without_chat_template_is_refused(tmp_path):
    folder = tiny_tokenizer(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(DataError, match="chat template"):
        PromptWindow.open(folder, 100)


def test_window_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match="tokenizer"):
        PromptWindow.open(tmp_path, 100)

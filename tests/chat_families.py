"""Small real tokenizers shaped like each family's, and what a conversation must read like in each.

`write` is the oracle: it says in plain Python what the decoded ids are and which parts are trained on,
the space included that a sentencepiece tokenizer puts before a text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SAMPLE = [
    "the answer is in the text and the question is why\n\nuser system assistant 1234 2024, sophisticated soap",
    "def f(x):\n    return x + 1\n\n    # think [INST] ab ba aba\n",
    "中文的问题和回答 é 😀 <|user|> <s> </s>",
] * 20
WORDS = r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

Part = tuple[str, bool]
Turns = list[tuple[str, str]]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        name: Our template's name.
        tokenizer: A tokenizer as the family's.
        write: Parts of the decoded text and whether each is trained on, given a system message and the turns.
        num_controls: Control tokens, given the number of system messages and of turns.
        places: Begin and end tokens, each with how often it occurs, given the number of system messages and
            of turns.
    """

    name: str
    tokenizer: PreTrainedTokenizerFast
    write: Callable[[str | None, Turns], list[Part]]
    num_controls: Callable[[int, int], int]
    places: dict[str, Callable[[int, int], int]]


def byte_level(*controls: str, eos: str, bos: str | None = None, normalizer=None, **options) -> PreTrainedTokenizerFast:
    """A BPE over bytes, as Llama-3's, Qwen's and Tekken are; control tokens are no part of its model."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(SAMPLE, trainer)
    if options:
        learnt = json.loads(tokenizer.to_str())
        learnt["model"] |= options
        tokenizer = Tokenizer.from_str(json.dumps(learnt))
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(control, special=True, normalized=False) for control in controls])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)


def sentencepiece_bpe(*controls: str, legacy: bool) -> PreTrainedTokenizerFast:
    """A BPE with bytes for unknown characters, as Llama-2's and Mistral's; `legacy` puts a space before all text."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    # Learnt word by word, so that a space only begins pieces; used on whole texts.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *controls])
    tokenizer.train_from_iterator(["\n".join(SAMPLE[:2])] * 5, trainer)
    learnt = json.loads(tokenizer.to_str())
    vocabulary = learnt["model"]["vocab"]
    learnt["model"]["vocab"] = vocabulary | {name: len(vocabulary) + byte for byte, name in enumerate(BYTES)}
    tokenizer = Tokenizer.from_str(json.dumps(learnt))
    tokenizer.pre_tokenizer = None if legacy else pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = SENTENCEPIECE
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def sentencepiece_unigram(*controls: str) -> PreTrainedTokenizerFast:
    """A unigram model whose control tokens are likely pieces of it, with a space before all text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>", special_tokens=["<unk>"])
    tokenizer.train_from_iterator(SAMPLE, trainer)
    pieces = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"] if piece[0] not in controls]
    # As after a conversion from sentencepiece: control tokens are the likeliest of all pieces.
    pieces += [(name, -12.0) for name in BYTES] + [(name, 0.0) for name in ("</s>", *controls)]
    tokenizer.model = models.Unigram(pieces, unk_id=0, byte_fallback=True)
    tokenizer.decoder = SENTENCEPIECE
    # ChatGLM3's own settings do not call its role tokens special.
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in controls])
    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


SENTENCEPIECE = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])


def llama_2(system: str | None, turns: Turns) -> list[Part]:
    parts: list[Part] = []
    for number, (user, answer) in enumerate(turns):
        has_system = system is not None and number == 0
        user = f"<<SYS>>\n{system}\n<</SYS>>\n\n{user.rstrip()}" if has_system else user.strip()
        # The space before [INST] is the tokenizer's.
        parts += [(f"<s> [INST] {user} [/INST]", False), (f" {answer.strip()} </s>", bool(answer.strip()))]
    return parts


def llama_3(system: str | None, turns: Turns) -> list[Part]:
    def header(role: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"

    parts = [("<|begin_of_text|>", False)]
    if system is not None:
        parts.append((f"{header('system')}{system.strip()}<|eot_id|>", False))
    for user, answer in turns:
        parts.append((f"{header('user')}{user.strip()}<|eot_id|>{header('assistant')}", False))
        parts.append((f"{answer.strip()}<|eot_id|>", bool(answer.strip())))
    return parts


def chatglm3(system: str | None, turns: Turns) -> list[Part]:
    # The space after a role is the tokenizer's, as in the model's own `encode("\n")`.
    parts = [("[gMASK]sop", False)]
    if system is not None:
        parts.append((f"<|system|> \n {system}", False))
    parts.append(("<|user|>", False))
    for number, (user, answer) in enumerate(turns):
        stop = "<|user|>" if number < len(turns) - 1 else "</s>"
        parts.append((f" \n {user}<|assistant|>", False))
        parts.append((f" \n {answer}{stop}", bool(answer.strip())))
    return parts


def mistral(space: str) -> Callable[[str | None, Turns], list[Part]]:
    def write(system: str | None, turns: Turns) -> list[Part]:
        parts = [("<s>", False)]
        for number, (user, answer) in enumerate(turns):
            first = f"{system}\n\n" if system is not None and number == 0 else ""
            parts.append((f"[INST]{space}{first}{user}[/INST]", False))
            parts.append((f"{space}{answer.strip()}</s>", bool(answer.strip())))
        return parts

    return write


def qwen(default: str | None, thinking: str) -> Callable[[str | None, Turns], list[Part]]:
    def write(system: str | None, turns: Turns) -> list[Part]:
        system = default if system is None else system
        parts = [] if system is None else [(f"<|im_start|>system\n{system}<|im_end|>\n", False)]
        for user, answer in turns:
            prompt = f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n{thinking}"
            parts += [(prompt, False), (f"{answer}<|im_end|>", bool(answer.strip())), ("\n", False)]
        return parts

    return write


def plain(system: str | None, turns: Turns) -> list[Part]:
    parts = [("<bos>", False)]
    if system is not None:
        parts.append((f"<|system|>\n{system}<eos>\n", False))
    for user, answer in turns:
        parts.append((f"<|user|>\n{user}<eos>\n<|assistant|>\n", False))
        parts += [(f"{answer}<eos>", bool(answer.strip())), ("\n", False)]
    return parts


@functools.cache
def families() -> dict[str, Family]:
    headers = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    roles = ("[gMASK]", "sop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
    chatml = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    once, each, never = (lambda system, turns: 1), (lambda system, turns: turns), (lambda system, turns: 0)
    built = [
        Family(
            "llama-2",
            sentencepiece_bpe(legacy=True),
            llama_2,
            lambda system, turns: 2 * turns,
            {"<s>": each, "</s>": each},
        ),
        Family(
            "llama-3",
            # Llama-3's model takes a word of its vocabulary whole, whatever the merges say.
            byte_level(*headers, bos="<|begin_of_text|>", eos="<|end_of_text|>", ignore_merges=True),
            llama_3,
            lambda system, turns: 1 + 3 * (system + 2 * turns),
            {"<|begin_of_text|>": once, "<|end_of_text|>": never},
        ),
        Family(
            "chatglm3",
            sentencepiece_unigram(*roles),
            chatglm3,
            lambda system, turns: 2 + system + 2 * turns + 1,
            {"[gMASK]": once, "sop": once, "<|user|>": each, "</s>": once},
        ),
        Family(
            "mistral",
            sentencepiece_bpe("[INST]", "[/INST]", legacy=False),
            mistral(" "),
            lambda system, turns: 1 + 3 * turns,
            {"<s>": once, "</s>": each},
        ),
        Family(
            "mistral-tekken",
            byte_level("<s>", "</s>", "[INST]", "[/INST]", bos="<s>", eos="</s>"),
            mistral(""),
            lambda system, turns: 1 + 3 * turns,
            {"<s>": once, "</s>": each},
        ),
        Family(
            "qwen2.5",
            byte_level(*chatml, eos="<|endoftext|>", normalizer=normalizers.NFC()),
            qwen("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", ""),
            lambda system, turns: 2 + 4 * turns,
            {"<|endoftext|>": never},
        ),
        Family(
            "qwen3",
            byte_level(*chatml, "<think>", "</think>", eos="<|im_end|>", normalizer=normalizers.NFC()),
            qwen(None, "<think>\n\n</think>\n\n"),
            lambda system, turns: 2 * system + 6 * turns,
            {"<|endoftext|>": never, "<think>": each},
        ),
        Family(
            "plain",
            byte_level("<bos>", "<eos>", bos="<bos>", eos="<eos>"),
            plain,
            lambda system, turns: 1 + system + 2 * turns,
            {"<bos>": once, "<eos>": lambda system, turns: system + 2 * turns},
        ),
    ]
    return {family.name: family for family in built}

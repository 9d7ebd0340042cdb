"""Whether an answer is fit to be trained on, by rules alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from longalign_core.config.quality import QualityConfig
from longalign_core.instruct.overlap import looping_words, overlap, repeated_words
from longalign_core.instruct.own_words import has_open_fence, is_mostly_code, own_words, without_code
from longalign_core.instruct.refusals import filter_message_in, refusal_in
from longalign_core.instruct.replies import EMPTY, FILTERED, REFUSAL, TRUNCATED, Fault
from longalign_core.text_language import identify_language
from longalign_core.word_hashes import Words, words_of

WRONG_LANGUAGE = "wrong language"
COPIED = "copied document"
REPEATS_QUESTION = "repeated question"
REPETITION = "repetition"
LEFTOVERS = "template leftovers"
TOO_SHORT = "too few words"
TOO_LONG = "too many words"

_MIN_REPEATED_WORDS = 60
_RULERS = "-=_*#~.·•…+|/\\<>^\u2500-\u257f"
_ONE_CHARACTER = re.compile(rf"([^\s{re.escape(_RULERS[:-3])}\u2500-\u257f])\1{{59,}}")
_CONTROL = re.compile(
    r"<\|[\w ]{2,40}\|>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|</s>|</?think>"
    r"|<｜[^｜\n]{2,40}｜>|^#{2,3} (?:Instruction|Response|Input|Human|Assistant):?[ \t]*$",
    re.MULTILINE,
)
_TURN = re.compile(
    r"^[ \t*_#]*((?:Human|User|Assistant|Question|Q|用户|人类|助手|问题|提问|问)[ \t]*\d{0,2}[*_]*[ \t]*[:：])",
    re.MULTILINE,
)
_ASKS_FOR_TURNS = re.compile(
    r"question|quiz|q\s?&\s?a|faq|dialog|conversation|interview|transcript|chat|exchange"
    r"|exercise|study guide|worksheet|问|练习|习题|学习指南|复习|对话|访谈|采访|谈话|聊天|考题|测验",
    re.IGNORECASE,
)
_NAMES_LANGUAGE = re.compile(
    r"translat|\b(?:in|into|from|to) (?:english|chinese|mandarin|french|german|spanish|japanese|korean|russian|italian"
    r"|latin|greek|arabic|portuguese|hindi)\b|original language"
    r"|翻译|译成|译为|译文|原文|[用以](?:英|中|汉|法|德|日|俄|西班牙)[文语]",
    re.IGNORECASE,
)
_ASKS_TO_QUOTE = re.compile(
    r"\bquot(?:e|es|ed|ing|ations?)\b|verbatim|word for word|exact (?:words|wording|text)|\bexcerpts?\b|in full\b"
    r"|引用|引述|摘录|摘抄|原文|原话|逐字|完整地?(?:列出|给出)",
    re.IGNORECASE,
)
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]{2,}")
# Of prose: names and titles begin with capitals, and lists of them have no language.
_LATIN_PROSE = re.compile(r"(?<![A-Za-zÀ-ɏ])[a-zß-ÿ][A-Za-zÀ-ɏ]+")
_BREAKS_OFF = re.compile(r"(?:[,，、;；]|\b(?:the|and|because|their|our|its|your|whose|which is)|[:：])\s*$")


def fault_of_answer(
    answer: str, question: str, texts: Sequence[str], language: str, quality: QualityConfig
) -> Fault | None:
    """The first reason why an answer is not fit to be trained on; None when no rule speaks against it.

    Costs are linear in the lengths of answer and texts; texts are only read when the answer is long
    enough to have copied from them.

    Args:
        answer: The model's words.
        question: What it was asked, without the document.
        texts: The documents it was asked about.
        language: Of the documents, ISO 639-1.
        quality: Which rules hold, and their bounds.
    """
    if not any(map(str.isalnum, answer)):
        return Fault(EMPTY, f"no letter or digit in {len(answer)} characters")
    if quality.refusals and (words := filter_message_in(answer, texts)):
        return Fault(FILTERED, f"a filter's message begins {words!r}")
    if quality.refusals and (words := refusal_in(answer, texts)):
        return Fault(REFUSAL, f"it says {words!r}")
    if quality.leftovers and (mark := _leftover(answer, question, texts)):
        return Fault(LEFTOVERS, f"it holds {mark!r}")
    words_of_answer = words_of(answer)
    return (
        _length_fault(words_of_answer, quality)
        or (_language_fault(answer, question, language) if quality.wrong_language else None)
        or _question_fault(words_of_answer, words_of(question))
        or _repetition_fault(answer, quality)
        or _copy_fault(words_of_answer, question, texts, quality)
        or (_unfinished_fault(answer, words_of_answer) if quality.unfinished else None)
    )


def _length_fault(answer: Words, quality: QualityConfig) -> Fault | None:
    if answer.total < quality.min_words and len(answer.hashes) < quality.min_words:
        return Fault(TOO_SHORT, f"{answer.total:g} words, where min_words is {quality.min_words}")
    if quality.max_words is not None and answer.total > quality.max_words:
        return Fault(TOO_LONG, f"{answer.total:g} words, where max_words is {quality.max_words}")
    return None


def _language_fault(answer: str, question: str, language: str) -> Fault | None:
    """Compared by script where Chinese is on one side, as names and terms of the other script may stand anywhere."""
    prose = without_code(answer)
    if _NAMES_LANGUAGE.search(question) or is_mostly_code(answer):
        return None
    num_han = len(_HAN.findall(prose))
    num_latin = 2 * len((_LATIN_PROSE if language == "zh" else _LATIN_WORD).findall(prose))
    identified = identify_language(prose)
    if identified is None or num_han + num_latin < 16:
        return None
    han_share = num_han / (num_han + num_latin)
    if language == "zh":
        wrong = han_share < 0.3
    elif han_share > 0.6 and language != "ja":
        wrong = True
    else:
        # Documents in further languages are asked about in English, and answered in either.
        asked = identify_language(question)
        fitting = {language, asked.code if asked and language != "en" else language} | {"en"}
        wrong = identified.code not in fitting and identified.score >= 0.7
    return Fault(WRONG_LANGUAGE, f"it is in {identified.code}, the document in {language}") if wrong else None


def _question_fault(answer: Words, question: Words) -> Fault | None:
    inner, outer = sorted((answer.hashes, question.hashes), key=len)
    if len(inner) >= 4 and len(inner) >= 0.7 * len(outer) and inner.tobytes() in outer.tobytes():
        return Fault(REPEATS_QUESTION, f"the question again, and {len(outer) - len(inner)} words beside it")
    return None


def _repetition_fault(answer: str, quality: QualityConfig) -> Fault | None:
    if quality.max_repeated_share is None:
        return None
    if found := _ONE_CHARACTER.search(answer):
        return Fault(REPETITION, f"{found[1]!r} {len(found[0])} times in a row")
    # Tables of numbers and initialisers in code repeat themselves for good reason.
    prose = words_of(without_code(answer))
    if num_looping := looping_words(prose):
        return Fault(REPETITION, f"one phrase over and over through {num_looping} words")
    share = repeated_words(prose) / max(prose.total, 1)
    if prose.total >= _MIN_REPEATED_WORDS and share > quality.max_repeated_share:
        return Fault(REPETITION, f"{share:.0%} said before, where {quality.max_repeated_share:.0%} may be")
    return None


def _copy_fault(answer: Words, question: str, texts: Sequence[str], quality: QualityConfig) -> Fault | None:
    longest, share = quality.max_copied_words, quality.max_copied_share
    if _ASKS_TO_QUOTE.search(question):
        share = None
    by_length = longest is not None and answer.total > longest
    by_share = share is not None and answer.total > quality.quoted_words
    if not (by_length or by_share):
        return None
    taken = overlap(answer, map(words_of, texts))
    if longest is not None and taken.longest > longest:
        return Fault(COPIED, f"{taken.longest:g} words in a row of the document, where {longest} may be")
    if share is not None and taken.words > quality.quoted_words and taken.words > share * answer.total:
        return Fault(COPIED, f"{taken.words / answer.total:.0%} of it from the document, where {share:.0%} may be")
    return None


def _leftover(answer: str, question: str, texts: Sequence[str]) -> str | None:
    own = own_words(answer)
    for found in _CONTROL.finditer(own):
        is_markup = found[0] == "</s>" and "<s>" in own[: found.start()]
        if not is_markup and found[0] not in question and not any(found[0] in text for text in texts):
            return found[0]
    if _ASKS_FOR_TURNS.search(question):
        return None
    for found in _TURN.finditer(own):
        # The first line may name itself; a turn after it is the model going on by itself.
        if own[: found.start()].strip() and not any(found[1] in text for text in texts):
            return found[1]
    return None


def _unfinished_fault(answer: str, words: Words) -> Fault | None:
    """Only what no finished answer ends with; an answer without a full stop may be a list or a name."""
    if has_open_fence(answer):
        return Fault(TRUNCATED, "a code block is not closed")
    last_line = answer.rstrip().rpartition("\n")[2]
    if words.total >= 8 and not is_mostly_code(answer) and (found := _BREAKS_OFF.search(last_line)):
        return Fault(TRUNCATED, f"it ends in {found[0].strip()!r}")
    return None

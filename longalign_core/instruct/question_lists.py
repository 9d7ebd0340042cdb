"""Questions out of what a model wrote when it was asked for a numbered list of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

# Thoughts that a server did not take out; without an opening tag where the template had written it.
_THOUGHTS = re.compile(r"\A.*</(?:think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)
_UNENDED_THOUGHTS = re.compile(r"<(?:think|thinking|thought|reasoning)>.*\Z", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"\s*(?:```|~~~)")
_TABLE_RULE = re.compile(r"\s*\|?[\s:|-]*-{2,}[\s:|-]*\|?\s*$")
# Full-width digits to plain ones, one character for one, so that places in the line stay.
_DIGITS = {ord("０") + digit: str(digit) for digit in range(10)}
_CIRCLED = {chr(0x2460 + place): place + 1 for place in range(20)} | {
    chr(0x2776 + place): place + 1 for place in range(10)
}
_HAN_DIGITS = "一二三四五六七八九"
_NUMBER = r"\d{1,2}|二?十[一二三四五六七八九]?|[一二三四五六七八九]"
_MARKER = re.compile(
    rf"""^(?P<indent>\s*)(?:[>\#*_•·\s-]|\ufeff)*                # Markdown before the number
        (?:(?P<word>q(?:uestion)?s?\.?\s*|(?:task|no|nr)\b\.?\s*|问题\s*|问\s*|任务\s*|第\s*)?\#?\s*  # a word for it
        (?:[（(\[【]\s*(?P<closed>{_NUMBER})\s*[)）\]】]          # (1)
           [:：.．、]?
          |(?P<open>{_NUMBER})
           (?:\s*(?:of|/)\s*\d{{1,2}}(?=\W))?                     # 1 of 5
           (?:[\s*_]*
             (?:[.．]?[：、)）]|(?:[个道]?问)?题[:：.．、]?|[-–—](?=\s)|:(?!\d\d(?!\d))|[.．](?!\d):?|\ufe0f?\u20e3[:.]?)
            |(?=[\s*_]*$)(?P<bare>)))                             # "Question 1" alone on its line
          |(?P<circled>[\u2460-\u2473\u2776-\u277f])[:：.．、]?)
        [\s*_]*(?P<text>.*)$""",
    re.IGNORECASE | re.VERBOSE,
)
_LABEL = re.compile(r"(?:question|task|q|问题|问)\s*[:：]\s*(?=\S)", re.IGNORECASE)
_ANSWER = re.compile(
    r"[\s>\#*_-]*(?:(?:answers?|solutions?|a)\s*\d{0,2}|参考答案|答案?\s*\d{0,2})\s*[*_]*[:：]", re.IGNORECASE
)
_BULLET = re.compile(r"\s*[-*•·–]\s+(?P<text>\S.*[?？])[\"”」*_\s]*$")
# The end of a turn, which some servers leave in the text.
_TURN_END = re.compile(r"\s*(?:<\|[\w ]{2,40}\|>|</s>|<end_of_turn>|<eos>|<｜[^｜\n]{2,40}｜>)")
_INLINE = re.compile(r"\s(\d{1,2})[:：.)、]\s+")
_QUOTES = {'"': '"', "“": "”", "‘": "’", "'": "'", "「": "」", "『": "』", "«": "»", "`": "`"}
_SENTENCE_ENDS = tuple(".?!。？！…")
_KEYS = ("question", "text", "content", "task", "query", "q", "问题")


def parse_questions(reply: str, limit: int) -> tuple[str, ...]:
    """The questions of a list, in order, without numbers, quotes and emphasis.

    Numbers may be written `1:`, `1.`, `1)`, `(1)`, `1：`, `1、`, `一、`, `①`, `Q1:`, `Question 1 -`,
    `问题1：`, bold, as headings, as rows of a table, or begin anew under each heading; JSON of strings
    or of objects with a question is read as well, and so are bullets that end as questions where
    nothing is numbered. Thoughts in tags, code fences, and what stands before the first and after the
    last question are ignored, and so are answers. A question may go on in further lines until its
    sentence ends. Fewer questions than were asked for are taken as they are: one is drawn in the end.

    Args:
        reply: The model's words.
        limit: Questions asked for; further ones are left out.

    Returns:
        At most `limit` distinct questions; empty when there is no numbered line with a word in it.
    """
    words = _TURN_END.sub("\n", _UNENDED_THOUGHTS.sub("", _THOUGHTS.sub("", reply)))
    lines = [
        _row_as_line(line) for line in words.splitlines() if not _FENCE.match(line) and not _TABLE_RULE.match(line)
    ]
    questions = list(_in_json(words)) or _numbered(lines)
    if len(questions) == 1:
        questions = _split_inline(questions[0])
    if not questions:
        bullets = [match["text"] for line in lines if (match := _BULLET.match(line))]
        questions = bullets if len(bullets) > 1 else []
    bare = (_bare(question) for question in questions)
    return tuple(dict.fromkeys(text for text in bare if any(map(str.isalpha, text))))[:limit]


def _numbered(lines: list[str]) -> list[str]:
    questions: list[str] = []
    last_number, first_indent, is_open = 0, 0, False
    for line in lines:
        match = _MARKER.match(line.translate(_DIGITS))
        if match and match["bare"] is not None and not match["word"]:
            match = None
        if match and _ANSWER.match(line[match.start("text") :]):
            match = None
        if match:
            number, indent = _number_of(match), len(match["indent"])
            if not questions:
                first_indent = indent
            elif number <= last_number and indent > first_indent:
                is_open = False  # A list within a question.
                continue
            questions.append(line[match.start("text") :].strip())
            last_number, is_open = number, True
        elif _ANSWER.match(line):
            if questions and not line.split(":")[-1].split("：")[-1].strip(" *_") and not is_open:
                break  # A heading above a list of answers.
            is_open = False
        elif questions and questions[-1] and not line.strip():
            is_open = False
        elif is_open:
            questions[-1] = f"{questions[-1]} {line.strip()}".strip()
        if is_open and _bare(questions[-1]).endswith(_SENTENCE_ENDS):
            is_open = False
    return questions


def _number_of(match: re.Match[str]) -> int:
    if circled := match["circled"]:
        return _CIRCLED[circled]
    digits = match["closed"] or match["open"]
    if digits.isdecimal():
        return int(digits)
    tens, ten, ones = digits.rpartition("十")
    return (10 * (_HAN_DIGITS.find(tens) + 1 if tens else 1) if ten else 0) + _HAN_DIGITS.find(ones or " ") + 1


def _row_as_line(line: str) -> str:
    """A row of a table as a numbered line: its number and its longest cell."""
    if not line.lstrip().startswith("|"):
        return line
    cells = [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
    number = cells[0].translate(_DIGITS).strip("*_ .:()")
    if len(cells) < 2 or not re.fullmatch(r"(?:q(?:uestion)?\s*)?\d{1,2}", number, re.IGNORECASE):
        return ""
    return f"{number}: {max(cells[1:], key=len)}"


def _in_json(words: str) -> Iterator[str]:
    """Questions of the first JSON values that hold any."""
    decoder = json.JSONDecoder(strict=False)
    place = 0
    while match := re.compile(r"^[ \t]*(?=[\[{])", re.MULTILINE).search(words, place):
        try:
            value, place = decoder.raw_decode(words, match.end())
        except (json.JSONDecodeError, RecursionError):
            place = words.find("\n", match.end()) + 1 or len(words)
            continue
        yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield " ".join(value.split())
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, dict):
        named = [one for name, one in value.items() if name.lower() in _KEYS]
        lists = [one for one in value.values() if isinstance(one, list | dict)]
        numbered = [one for name, one in value.items() if re.search(r"\d", name) and isinstance(one, str)]
        yield from _strings(named[:1] or lists or numbered)


def _split_inline(question: str) -> list[str]:
    """A list that was written in one line, from its second number on; else the question alone."""
    places, expected = [], 2
    for match in _INLINE.finditer(question.translate(_DIGITS)):
        if int(match[1]) == expected:
            places.append(match)
            expected += 1
    if len(places) < 2:
        return [question]
    starts = [0, *(match.end() for match in places)]
    ends = [*(match.start() for match in places), len(question)]
    return [question[start:end] for start, end in zip(starts, ends, strict=True)]


def _bare(text: str) -> str:
    """Without the emphasis, the quotation marks and a label around it."""
    while True:
        stripped = text.strip().strip("*").strip()
        stripped = stripped[2:-2] if len(stripped) > 4 and stripped[:2] == stripped[-2:] == "__" else stripped
        stripped = _LABEL.sub("", stripped, count=1) if _LABEL.match(stripped) else stripped
        closing = _QUOTES.get(stripped[:1])
        if closing and stripped.endswith(closing) and not {stripped[0], closing} & set(stripped[1:-1]):
            stripped = stripped[1:-1]
        if stripped == text:
            return text
        text = stripped

"""Refusals and the messages of content filters, told from answers that speak of such things.

Only what an answer says itself counts: at the beginning of a sentence, in the first person, outside
quotations, lists and code, and not when the very sentence stands in the document.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from longalign_core.instruct.own_words import own_words

_SHORT_CHARACTERS = 400
"""Up to this length, two or three sentences, what only may be a refusal is one."""

# An asterisk with a space behind it is a list's.
_AT_START = r"(?:^(?:\*(?!\s)|[ \t_#\"'“])*|(?<=[.!?。！？][ \t\"”*_])[ \t]*|(?<=[。！？]))"
_LEAD_EN = r"(?:(?:sorry|unfortunately|however|but|regrettably|(?:my |sincere )*apologies)[,.!]?\s+(?:but\s+)?)*"
_SORRY_EN = (
    r"(?:i(?:['’]m| am) (?:very |so |really |truly )?(?:sorry|afraid)|i (?:must |do )?apologi[sz]e)[^.!?\n]{0,40}?"
)
_CANNOT_EN = (
    r"(?:i|we)(?:\s+(?:really|simply|also|just))?\s*"
    r"(?:can\s?not|can['’]t|won['’]t|will not|(?:['’]m|\s?am|['’]re|\s?are)\s+(?:not able|unable) to"
    r"|(?:will not|won['’]t) be able to|must (?:respectfully )?decline to|(?:have|need) to decline to"
    r"|(?:['’]m|\s?am) not (?:allowed|permitted|comfortable) (?:to|with))\s+(?:\w+ly\s+)?"
)
_SERVE_EN = (
    r"(?:(?:help|assist)(?:ing)?(?: you)?(?: (?:with|in)\b|[.!,]|$)|comply|fulfil|accommodate"
    r"|(?:answer|respond to|complete|process|continue with|discuss|engage (?:with|in)|write|generate|create|produce"
    r"|provid(?:e|ing)|summari[sz]e|share|reproduce)\s"
    r"(?:with\s)?(?:this|that|your|such|the (?:request|question|document|text|content|article|book))\b)"
)
_MAYBE_EN = (
    r"(?:answer|provide|determine|find|access|view|see|open|read|summari[sz]e|complete|give|offer|identify|tell|say"
    r"|generate|create|write|help|assist|continue|proceed|share|verify|confirm)\b(?! but\b)"
)
_MACHINE_EN = (
    r"(?:as|being|since i(?:['’]m| am)) an? (?:large |text-based )?(?:ai|artificial intelligence|language model)"
    r"(?: language)?(?: (?:model|assistant|system|program|chatbot))?(?: (?:trained|developed|created) by \w+)?"
    r",?\s+(?:i\b|my\b)|i(?:['’]m| am) (?:just |only )?an? (?:ai|(?:large )?language model)\b"
)
_LEAD_ZH = (
    r"(?:(?:非常|很|十分|实在|真的)?(?:抱歉|对不起|遗憾|不好意思)[^。！？\n]{0,15}?"
    r"|但是?[，,]?|不过[，,]?|因此[，,]?|请原谅[，,]?)*"
)
_CANNOT_ZH = r"(?:我|本人|本模型|本助手)[^。！？，,\n]{0,8}?(?:无法|不能|不可以|没有办法|没办法|难以|不便|无权|拒绝)"
_SERVE_ZH = (
    r"(?:为?(?:您|你)?(?:继续)?(?:协助|帮助|帮(?:您|你)|满足|提供(?:帮助|协助|相关|此类|这)|回答(?:您|你|这|该|此)"
    r"|完成(?:您|你|这|该|此)|处理(?:您|你|这|该|此)|讨论(?:这|该|此)|生成(?:这|该|此)|执行(?:这|该|此)))"
)
_MAYBE_ZH = (
    r"[^。！？，,\n]{0,6}?(?:回答|提供|确定|判断|访问|查看|阅读|打开|总结|完成|给出|生成|继续|协助|帮助|得知|处理|讨论)"
)
_MACHINE_ZH = (
    r"(?:作为|身为)(?:一个|一名|一款|一位|由\w{1,12}?(?:开发|训练)的)?\s*(?:大型|大)?(?:ai|人工智能|语言模型|智能)"
    r"(?:大?语言)?(?:助手|模型|程序|系统|机器人)?[，,、\s]*(?:我|本模型|本助手)"
    r"|我(?:只)?是(?:一个|一名|一款)(?:大型|大)?\s*(?:ai|人工智能|语言模型)"
)

_CERTAIN = re.compile(
    rf"{_AT_START}(?:{_LEAD_EN}(?:{_MACHINE_EN}|(?:{_SORRY_EN})?{_CANNOT_EN}{_SERVE_EN})"
    rf"|{_LEAD_ZH}(?:{_MACHINE_ZH}|{_CANNOT_ZH}{_SERVE_ZH}))",
    re.IGNORECASE | re.MULTILINE,
)
_POSSIBLE = re.compile(
    rf"{_AT_START}(?:{_LEAD_EN}(?:{_SORRY_EN})?{_CANNOT_EN}{_MAYBE_EN}|{_LEAD_ZH}{_CANNOT_ZH}{_MAYBE_ZH}"
    r"|(?:i(?:['’]m| am) (?:very |so )?sorry|sorry|(?:my )?apologies)[,.!]?\s+(?:but\s+)?"
    r"(?:i|that|this|the (?:document|text))\b"
    r"|(?:很|非常|十分)?(?:抱歉|对不起)[，,。！]\s*(?:我|这|该|您))",
    re.IGNORECASE,
)
_TEXT = r"(?:text|document|article|passage|file|content)"
# Answers of models to which the document did not come, or that lost it on the way.
_WITHOUT_TEXT = re.compile(
    rf"{_AT_START}(?:{_LEAD_EN}(?:i(?:['’]m| am) (?:very |so )?(?:sorry|afraid),?\s+(?:but\s+)?)?"
    r"(?:it (?:seems|looks|appears)(?: like| that| as if| as though)?\s+)?"
    r"(?:you (?:have not|haven['’]t|did not|didn['’]t) (?:yet )?(?:provid|includ|shar|attach|past|upload)\w*"
    rf"|(?:(?:the|your) {_TEXT}s?(?: itself)? (?:was|were|has been|is)(?: not|n['’]t)|no {_TEXT} (?:was|has been|is))"
    r" (?:provided|included|attached|pasted|shared) (?:in|with|to|here)\b"
    r"|i (?:do not|don['’]t) (?:actually |currently )?(?:have access to|see) (?:the|any|your|this|that)(?: \w+)?"
    rf" {_TEXT}\b"
    r"|(?:please|could you|can you) (?:please )?(?:provide|paste|share|upload|send)(?: me)?(?: with)? (?:the|your)"
    rf"(?: \w+)? {_TEXT}\b[^.?!\n]{{0,40}}\b(?:so (?:that )?i|and i|i can|i will|i['’]ll|you))"
    rf"|{_LEAD_ZH}(?:您|你)(?:似乎|好像)?(?:并?没有|并?未|还没有?|尚未)(?:提供|上传|粘贴|附上|给出)[^。！？\n]{{0,10}}?"
    r"(?:文档|文本|文章|内容|原文|文件|资料)"
    rf"|{_LEAD_ZH}请(?:您|你)?(?:先|再)?(?:提供|上传|粘贴|附上|发送)[^。！？\n]{{0,10}}?(?:文档|文本|文章|内容|原文|文件)"
    r"[^。！？\n]{0,10}[，,][^。！？\n]{0,6}我)",
    re.IGNORECASE | re.MULTILINE,
)
# Wordings as seen in public repositories' handling of Azure OpenAI, Anthropic, Zhipu and DashScope errors.
_FILTERED = re.compile(
    r"^\W*(?:error(?: code)?:?\s*\d*\W*)?(?:"
    r"(?:the|this|your) (?:response|prompt|request|content|output|message)[^.\n]{0,40}(?:was|has been|were|is)\s+"
    r"(?:filtered|blocked|flagged|withheld)\s+(?:due to|by|because|as|for)\b[^\n]{0,120}(?:polic|filter|safety|harm)"
    r"|(?:output|response|content) blocked by content filter"
    r"|(?:input|output)(?: text)? data may contain inappropriate content"
    r"|\W*error\W{1,8}message\W{1,6}the response was filtered"
    r"|系统检测到(?:输入|您)[^。\n]{0,12}内容[^。\n]{0,12}(?:不安全|敏感|违规)"
    r"|(?:非常|很)?(?:抱歉|对不起)?[，,]?\s*(?:您|你|该|此|本次)?(?:的)?(?:输入|输出|提问|生成|回复|请求)(?:的)?"
    r"(?:内容)?[^。\n]{0,10}(?:违规|违反|敏感|不合规|不当)[^。\n]{0,20}(?:[，,。！!][^。\n]{0,10}(?:请|无法|已)|$)"
    r"|(?:抱歉|对不起)?[，,]?\s*(?:该|此)?内容(?:因)?(?:涉嫌|存在)?违规[^。\n]{0,6}[，,。！!]?[^。\n]{0,6}(?:请|无法|已被|$)"
    r")|content_filter_result|ResponsibleAIPolicyViolation",
    re.IGNORECASE,
)


def refusal_in(answer: str, texts: Sequence[str]) -> str | None:
    """The words with which an answer refuses, wherever they stand in it; None when it does not.

    Args:
        answer: The model's words.
        texts: What it was asked about; a sentence that stands there is a quotation.
    """
    own = _own(answer)
    for match in _CERTAIN.finditer(own):
        if not _stands_in(_sentence(own, match.start()), texts):
            return _shown(match[0])
    if len(own) > _SHORT_CHARACTERS:
        return None
    for found in (_POSSIBLE.match(own), *_WITHOUT_TEXT.finditer(own)):
        if found and not _stands_in(_sentence(own, found.start()), texts):
            return _shown(found[0])
    return None


def filter_message_in(answer: str, texts: Sequence[str]) -> str | None:
    """The message of a content filter that came as text in the place of an answer; None when there is none."""
    own = _own(answer)
    if len(own) <= 2 * _SHORT_CHARACTERS and (found := _FILTERED.match(own)) and not _stands_in(found[0], texts):
        return _shown(found[0])
    return None


def _own(answer: str) -> str:
    """What the answer says itself; all of it when it is nothing but one quotation."""
    own = own_words(answer).strip()
    return own if any(map(str.isalpha, own)) else answer.strip()


def _sentence(text: str, start: int) -> str:
    rest = text[start:].lstrip(" \t*_#\"'“")
    end = re.search(r"[.!?](?=\s|$|[\"”])|[。！？\n]", rest)
    return rest[: end.start()] if end else rest


def _stands_in(sentence: str, texts: Sequence[str]) -> bool:
    words = sentence.strip()
    return len(words) > 8 and any(words in text for text in texts)


def _shown(words: str) -> str:
    return " ".join(words.split())[:80]

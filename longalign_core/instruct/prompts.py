"""What the generator is asked, in the document's language. The document always comes first, unchanged.

All calls of a conversation begin with the same bytes, so a server that keeps prefixes reads the long
text once.
"""

from __future__ import annotations

from collections.abc import Sequence

from longalign_core.records import Document

QUESTIONS_SCHEMA = (
    '{"type":"object","properties":{"questions":{"type":"array","items":{"type":"string"}}},'
    '"required":["questions"],"additionalProperties":false}'
)
"""What a structured reply to a request for questions follows. Every key required and no other allowed, as strict
structured output wants it."""

# Plain words and the form of the reply last: small models follow nothing else.
_REQUEST_EN = (
    "Write {number} different {asked} about the text above. {request} Together the {asked} must cover the "
    "beginning, the middle and the end of the text, and each must make sense by itself and be {answerable} from the "
    "text. Do not {answer} them. "
)
_LIST_EN = 'Write one {one} a line, numbered "1: ", "2: ", "3: " and so on.'
_JSON_EN = 'Reply with a JSON object of the form {{"questions": ["...", "..."]}} that lists the {number} {asked}.'
_REQUEST_ZH = (
    "请就以上文本写出{number}个不同的{asked}。{request}这些{asked}合起来必须涉及文本的开头、中间和结尾部分，"
    "每个{asked}都要能够单独理解，并且能够根据文本{answerable}。不要{answer}这些{asked}。"
)
_LIST_ZH = "每行写一个{asked}，用“1: ”、“2: ”、“3: ”等依次编号。"
_JSON_ZH = '请用{{"questions": ["…", "…"]}}形式的JSON对象列出这{number}个{asked}。'

# Several candidates are asked for, so that one that was asked before can be passed over.
_FOLLOW_UP_EN = (
    "You are now the reader who is asking the questions. Write {number} different questions, any one of which could "
    "be your next one in this conversation about the text. Each goes on from what was just said: it asks for a "
    "reason, a detail, an example, a comparison with another part of the text, or a consequence, and its answer "
    "stands in the text and was not given yet. Do not answer them. "
)
_FOLLOW_UP_ZH = (
    "现在请你扮演提问的读者，写出{number}个不同的问题，其中任何一个都可以作为这次关于文本的对话中的下一个问题。"
    "每个问题都要承接刚才的内容：追问原因、细节、例子、与文本其他部分的比较或者后果，答案在文本中可以找到，"
    "而且前面还没有说过。不要回答这些问题。"
)


def questions_prompt(
    text: str, language: str, request: str, num_questions: int, *, structured: bool = False, is_task: bool = False
) -> str:
    """The first call: the document, then the request for a numbered list of questions.

    Args:
        text: The document's text, or several documents' as `joined_text` has them.
        language: Of the document, ISO 639-1; "zh" is asked in Chinese, everything else in English.
        request: What kind of questions, in that language.
        num_questions: How many.
        structured: Ask for JSON in place of numbered lines.
        is_task: Call them tasks: what is wanted is work to be done, not a question to be answered.
    """
    names = _names(language, is_task)
    words = (_REQUEST_ZH if language == "zh" else _REQUEST_EN).format(number=num_questions, request=request, **names)
    return after_text(text, words + _form(language, structured, num_questions, names))


def follow_up_prompt(language: str, num_questions: int, *, structured: bool = False) -> str:
    """The request for the next question of a conversation; it stands alone as the user's last turn."""
    words = (_FOLLOW_UP_ZH if language == "zh" else _FOLLOW_UP_EN).format(number=num_questions)
    return words + _form(language, structured, num_questions, _names(language, is_task=False))


def after_text(text: str, words: str) -> str:
    """The document, then words about it: a question, as the user's turn of the training conversation has it."""
    return f"{text}\n\n{words}"


def joined_text(documents: Sequence[Document]) -> str:
    """The text that all calls of a conversation begin with: one document's as it is, several under numbered headings.

    The headings are in the first document's language.
    """
    if len(documents) == 1:
        return documents[0].text
    word, colon = ("文档", "：") if documents[0].language == "zh" else ("Document", ": ")
    rule = "=" * 20
    return "\n\n".join(
        f"{rule} {word} {number}{colon + ' '.join(one.title.split()) if one.title else ''} {rule}\n\n{one.text}"
        for number, one in enumerate(documents, start=1)
    )


def _names(language: str, is_task: bool) -> dict[str, str]:
    names = {
        ("en", False): ("questions", "question", "answerable", "answer"),
        ("en", True): ("tasks", "task", "possible to do", "do"),
        ("zh", False): ("问题", "", "作答", "回答"),
        ("zh", True): ("任务", "", "完成", "动手完成"),
    }["zh" if language == "zh" else "en", is_task]
    return dict(zip(("asked", "one", "answerable", "answer"), names, strict=True))


def _form(language: str, structured: bool, num_questions: int, names: dict[str, str]) -> str:
    listed, as_json = (_LIST_ZH, _JSON_ZH) if language == "zh" else (_LIST_EN, _JSON_EN)
    return (as_json if structured else listed).format(number=num_questions, **names)

"""What the generator is asked, in the document's language. The document always comes first, unchanged.

Both calls of a document begin with the same bytes, so a server that keeps prefixes reads the long
text once.
"""

from __future__ import annotations

from longalign_core.config.instruct import TaskType

_REQUEST_EN = (
    "The text above is given in full. Write {number} questions or instructions about it that a reader could put "
    "to an assistant who has the whole text at hand. {task} They must differ from one another and, taken together, "
    "touch the beginning, the middle and the end of the text. Each has to make sense by itself, without the others, "
    "and has to be answerable from the text. Give the questions only, one a line, without answers, numbered like "
    'this: "1: ", "2: ", and so on.'
)
_TASKS_EN: dict[TaskType, str] = {
    "general": (
        "Let them be of the many kinds that come up in practice: about facts, reasons, people or parts, views and "
        "wording, or what could be made of the text."
    ),
    "summary": (
        "Each shall ask for a summary: of the whole, of one longer stretch, or of what several distant parts say "
        "on one matter, brought together."
    ),
    "reasoning": (
        "Each shall need several steps of thought: to answer it, statements from different places in the text have "
        "to be found, compared and combined, and the answer itself stands nowhere in it word for word."
    ),
    "extraction": (
        "Each shall ask for particular information to be found in the text and given back exactly: names, numbers, "
        "dates, terms, conditions, definitions, or a complete list of such things."
    ),
}
_REQUEST_ZH = (
    "以上是一篇完整的文本。请围绕它写出{number}个问题或指令，供读者向一位能够看到全文的助手提出。{task}"
    "这些问题彼此不同，合起来要涉及文本的开头、中间和结尾部分。每个问题都要能够单独理解，不依赖其他问题，"
    "并且能够根据文本作答。只写问题，每行一个，不要写答案，并按如下方式编号：“1: ”、“2: ”，依此类推。"
)
_TASKS_ZH: dict[TaskType, str] = {
    "general": (
        "问题应当是实际使用中常见的各种类型：关于事实、原因、人物或组成部分、观点与措辞，或者如何运用这篇文本。"
    ),
    "summary": (
        "每个问题都要求作出总结：总结全文，总结其中较长的一段，或者把相隔较远的几个部分对同一件事的论述归纳在一起。"
    ),
    "reasoning": (
        "每个问题都需要多步推理：回答时必须在文本的不同位置找到若干陈述，加以比较和综合，而答案本身并未在文中直接写出。"
    ),
    "extraction": (
        "每个问题都要求从文本中找出特定信息并准确给出：名称、数字、日期、术语、条件、定义，或者这类内容的完整清单。"
    ),
}


def questions_prompt(text: str, language: str, task_type: TaskType, num_questions: int) -> str:
    """The first call: the document, then the request for a numbered list of questions.

    Args:
        text: The document's text.
        language: Of the document, ISO 639-1; "zh" is asked in Chinese, everything else in English.
        task_type: What kind of questions.
        num_questions: How many.
    """
    request, tasks = (_REQUEST_ZH, _TASKS_ZH) if language == "zh" else (_REQUEST_EN, _TASKS_EN)
    return _after_document(text, request.format(number=num_questions, task=tasks[task_type]))


def answer_prompt(text: str, question: str) -> str:
    """The second call, and the user's turn of the training conversation: the document, then one question."""
    return _after_document(text, question)


def _after_document(text: str, words: str) -> str:
    return f"{text}\n\n{words}"

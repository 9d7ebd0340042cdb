"""What the generator is asked, in the document's language. The document always comes first, unchanged.

Both calls of a document begin with the same bytes, so a server that keeps prefixes reads the long
text once.
"""

from __future__ import annotations

from longalign_core.config.instruct import TaskType

# Plain words and the form of the reply last: small models follow nothing else.
_REQUEST_EN = (
    "Write {number} different questions about the text above. {task} Together the questions must cover the "
    "beginning, the middle and the end of the text, and each must make sense by itself and be answerable from the "
    'text. Do not answer them. Write one question a line, numbered "1: ", "2: ", "3: " and so on.'
)
_TASKS_EN: dict[TaskType, str] = {
    "general": "Ask about different things: facts, reasons, people or parts, opinions, wording, uses of the text.",
    "summary": (
        "Each question asks for a summary: of the whole text, of a longer part of it, or of what several distant "
        "parts say about one subject."
    ),
    "reasoning": (
        "Each question needs several steps of thought: to answer it, statements from different places of the text "
        "must be found and combined, and the answer is written nowhere in it word for word."
    ),
    "extraction": (
        "Each question asks for particular information to be found in the text and given exactly: names, numbers, "
        "dates, terms, conditions, definitions, or a complete list of such things."
    ),
}
_REQUEST_ZH = (
    "请就以上文本写出{number}个不同的问题。{task}这些问题合起来必须涉及文本的开头、中间和结尾部分，"
    "每个问题都要能够单独理解，并且能够根据文本作答。不要回答这些问题。每行写一个问题，"
    "用“1: ”、“2: ”、“3: ”等依次编号。"
)
_TASKS_ZH: dict[TaskType, str] = {
    "general": "问题要涉及不同的方面：事实、原因、人物或组成部分、观点、措辞，以及文本的用途。",
    "summary": "每个问题都要求作出总结：总结全文，总结其中较长的一部分，或者归纳相隔较远的几个部分对同一主题的论述。",
    "reasoning": "每个问题都需要多步推理：必须在文本的不同位置找到若干陈述并加以综合才能回答，答案在文中没有直接写出。",
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

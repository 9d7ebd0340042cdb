"""The task types of the paper, by name: what a recipe need not write out."""

from __future__ import annotations

from longalign_core.config.task_types import QuestionsTask

# Plain words: small models follow nothing else.
BUILT_IN_TASKS: dict[str, QuestionsTask] = {
    task.name: task
    for task in (
        QuestionsTask(
            name="general",
            request_en="Ask about different things: facts, reasons, people or parts, opinions, wording, uses of the "
            "text.",
            request_zh="问题要涉及不同的方面：事实、原因、人物或组成部分、观点、措辞，以及文本的用途。",
        ),
        QuestionsTask(
            name="summary",
            request_en="Each question asks for a summary: of the whole text, of a longer part of it, or of what "
            "several distant parts say about one subject.",
            request_zh="每个问题都要求作出总结：总结全文，总结其中较长的一部分，或者归纳相隔较远的几个部分对同一主题的"
            "论述。",
        ),
        QuestionsTask(
            name="reasoning",
            request_en="Each question needs several steps of thought: to answer it, statements from different places "
            "of the text must be found and combined, and the answer is written nowhere in it word for word.",
            request_zh="每个问题都需要多步推理：必须在文本的不同位置找到若干陈述并加以综合才能回答，答案在文中没有直接"
            "写出。",
        ),
        QuestionsTask(
            name="extraction",
            request_en="Each question asks for particular information to be found in the text and given exactly: "
            "names, numbers, dates, terms, conditions, definitions, or a complete list of such things.",
            request_zh="每个问题都要求从文本中找出特定信息并准确给出：名称、数字、日期、术语、条件、定义，或者这类内容的"
            "完整清单。",
        ),
    )
}
"""Adding one means adding one entry."""

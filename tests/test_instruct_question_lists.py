"""Reading lists of questions, in whatever form models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longalign_core.instruct.question_lists import parse_questions

THREE = ("What is A?", "Why is B?", "Who is C?")


@pytest.mark.parametrize(
    "reply",
    [
        "1: What is A?\n2: Why is B?\n3: Who is C?",
        "1. What is A?\n2. Why is B?\n3. Who is C?",
        "1) What is A?\n2) Why is B?\n3) Who is C?",
        "(1) What is A?\n(2) Why is B?\n(3) Who is C?",
        "（1）What is A?\n（2）Why is B?\n（3）Who is C?",
        "1：What is A?\n2：Why is B?\n3：Who is C?",
        "1、What is A?\n2、Why is B?\n3、Who is C?",
        "1 - What is A?\n2 - Why is B?\n3 – Who is C?",
        "Q1: What is A?\nQ2: Why is B?\nQ3: Who is C?",
        "Question 1: What is A?\n\nQuestion 2: Why is B?\n\nQuestion 3: Who is C?",
        "问题1：What is A?\n问题 2：Why is B?\n第3题：Who is C?",
        "**1:** What is A?\n**2:** Why is B?\n**3:** Who is C?",
        "**1: What is A?**\n**2: Why is B?**\n**3: Who is C?**",
        "1: **What is A?**\n2: **Why is B?**\n3: **Who is C?**",
        "### 1. What is A?\n### 2. Why is B?\n### 3. Who is C?",
        "- 1: What is A?\n- 2: Why is B?\n- 3: Who is C?",
        "1: \"What is A?\"\n2: “Why is B?”\n3: 'Who is C?'",
        "Sure! Here are 3 questions:\n\n1: What is A?\n2: Why is B?\n3: Who is C?\n\nI hope these help.",
        "Here they are.\n1: What is A?\n2: Why is B?\n3: Who is C?\nLet me know if you want more.",
        "1:\nWhat is A?\n2:\n\nWhy is B?\n3:\nWho is C?",
        "1: What\n   is A?\n2: Why is\nB?\n3: Who is C?",
        "1: What is A?\r\n2: Why is B?\r\n3: Who is C?\r\n",
        "   1:What is A?\n   2:Why is B?\n   3:Who is C?",
        "1: What is A?\n1: What is A?\n2: Why is B?\n2: Why is B?\n3: Who is C?",
        "<think>I need:\n1: a plan?\n2: more?</think>\n1: What is A?\n2: Why is B?\n3: Who is C?",
        "1. a plan?\n</think>\n1: What is A?\n2: Why is B?\n3: Who is C?",
        "```\n1: What is A?\n2: Why is B?\n3: Who is C?\n```",
        '```json\n{"questions": ["What is A?", "Why is B?", "Who is C?"]}\n```',
        'Here you are:\n["What is A?", "Why is B?", "Who is C?"]',
        '[{"id": 1, "question": "What is A?"}, {"id": 2, "question": "Why is B?"}, {"id": 3, "question": "Who is C?"}]',
        '{"1": "What is A?", "2": "Why is B?", "3": "Who is C?"}',
        '{"question": "What is A?"}\n{"question": "Why is B?"}\n{"question": "Who is C?"}',
        "| # | Question |\n|---|---|\n| 1 | What is A? |\n| 2 | Why is B? |\n| 3 | Who is C? |",
        "Question 1 - What is A?\nQuestion 2 - Why is B?\nQuestion 3 - Who is C?",
        "**Question 1**\nWhat is A?\n\n**Question 2**\nWhy is B?\n\n**Question 3**\nWho is C?",
        "Beginning:\n1. What is A?\nMiddle:\n1. Why is B?\nEnd:\n1. Who is C?",
        "1: What is A?\n   - a hint\n   1. sub\n2: Why is B?\n   1. sub\n   2. sub\n3: Who is C?",
        "Here are five questions:\n1. Question: What is A?\n2. Question: Why is B?\n3. Question: Who is C?",
        "一、What is A?\n二、Why is B?\n三、Who is C?",
        "第一题：What is A?\n第二题：Why is B?\n第三题：Who is C?",
        "（一）What is A?\n（二）Why is B?\n（三）Who is C?",
        "１：What is A?\n２：Why is B?\n３．Who is C?",
        "①What is A?\n② Why is B?\n③ Who is C?",
        "Q1: What is A?\nA1: It is a letter.\nQ2: Why is B?\nA2: No reason.\nQ3: Who is C?",
        "1: What is A?\n2: Why is B?\n3: Who is C?\n\nAnswers:\n1: A letter.\n2: No reason.",
        "1: What is A? 2: Why is B? 3: Who is C?",
        "- What is A?\n- Why is B?\n- Who is C?",
    ],
)
def test_parse_questions_every_way_of_numbering_gives_the_bare_questions(reply):
    assert parse_questions(reply, 5) == THREE


@pytest.mark.parametrize(
    ("reply", "questions"),
    [
        ("", ()),
        ("What is A? Why is B?", ()),
        ("What is A?\nWhy is B?", ()),
        ("1:\n2:\n3:", ()),
        ("1. 1. 1. 2.\n2. ...\n3. Why?", ("Why?",)),
        ("1: Only one?", ("Only one?",)),
        ("2: Starts late?\n4: Skips one?", ("Starts late?", "Skips one?")),
        ("1: Same?\n2: Same?\n3: Other?", ("Same?", "Other?")),
        ("1: A?\n2: B?\n3: C?\n4: D?\n5: E?\n6: F?\n7: G?", ("A?", "B?", "C?", "D?", "E?")),
        ("1: 请总结第3章的内容。\n2: 作者为什么反对？", ("请总结第3章的内容。", "作者为什么反对？")),
        ("1：2020年发生了什么？\n2:2021年呢？", ("2020年发生了什么？", "2021年呢？")),
        ("1: What happened between 12:30 and\n13:45 that day?", ("What happened between 12:30 and 13:45 that day?",)),
        ("1: How did the share grow by\n1.5 percent?", ("How did the share grow by 1.5 percent?",)),
        ('1: "Open" and "shut" are used how?', ('"Open" and "shut" are used how?',)),
        ('1: What do "left" and "right"', ('What do "left" and "right"',)),
        ('1: "Left" versus "right"', ('"Left" versus "right"',)),
        ("1: List every file that ends in *.py", ("List every file that ends in *.py",)),
        ("10: Is ten fine?", ("Is ten fine?",)),
        ("1984: A year is no number of a question.", ()),
    ],
)
def test_parse_questions_odd_reply_gives_what_can_be_trusted(reply, questions):
    assert parse_questions(reply, 5) == questions


FORMS = {
    "{n}: {q}",
    "{n}. {q}",
    "{n}) {q}",
    "({n}) {q}",
    "{n}：{q}",
    "{n}、{q}",
    "Q{n}: {q}",
    "Question {n} - {q}",
    "问题{n}：{q}",
    "**{n}. {q}**",
    '{n}: "{q}"',
    "| {n} | {q} |",
    "**Question {n}**\n{q}\n",
    "{h}、{q}",
    "{w}：{q}",
}
_QUESTION = st.builds(
    "{} {}{}".format,
    st.sampled_from(["What", "Why does", "In 1984, who", "作者", "Summarise", "Which of the 3"]),
    st.lists(
        st.builds(
            "{}{}".format, st.sampled_from("abX中文"), st.text(st.sampled_from("abcXYZ中文问题0189,'-%"), max_size=9)
        ),
        min_size=1,
        max_size=8,
    ).map(" ".join),
    st.sampled_from([".", "?", "？", "。", ""]),
)


@given(st.lists(_QUESTION, min_size=5, max_size=5, unique=True), st.sampled_from(sorted(FORMS)))
def test_parse_questions_any_five_in_any_form_come_back_exactly(questions, form):
    rendered = [
        form.format(n=number, h="一二三四五"[number - 1], w="１２３４５"[number - 1], q=question)
        for number, question in enumerate(questions, start=1)
    ]
    assert parse_questions("\n".join(rendered), 5) == tuple(questions)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("1: What is A?\n2: Why is B?<|im_end|>", ("What is A?", "Why is B?")),
        ("1: What is A?</s>", ("What is A?",)),
        ("1: 甲是什么？<｜end▁of▁sentence｜>", ("甲是什么？",)),
        ("第一个问题：甲是什么？\n第二个问题：为什么有乙？", ("甲是什么？", "为什么有乙？")),
        ("第1问题：甲是什么？\n第2问题：为什么有乙？", ("甲是什么？", "为什么有乙？")),
        ("1 - What is A?\n2 - Why is B?", ("What is A?", "Why is B?")),
        ("1: 10:30 came; what then?\n2: 1984: why that title?", ("10:30 came; what then?", "1984: why that title?")),
        ("1: Compare by:\n   a) cost\n   b) speed\n2: Why is B?", ("Compare by: a) cost b) speed", "Why is B?")),
        ("1: Write a guide.\nI hope it helps.\n2: Write a list.", ("Write a guide.", "Write a list.")),
        ("Part 1 (Beginning):\n1: What is A?\nPart 2 (Middle):\n2: Why is B?", ("What is A?", "Why is B?")),
        ('Use "1: ", "2: " and so on.\n\n1: What is A?\n2: Why is B?', ("What is A?", "Why is B?")),
    ],
)  # fmt: skip
def test_parse_questions_further_habits_of_models_are_read(reply, found):
    assert parse_questions(reply, 5) == found

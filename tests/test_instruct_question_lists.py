"""Reading lists of questions, in whatever form models write them."""

from __future__ import annotations

import pytest

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

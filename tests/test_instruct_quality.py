"""Answers by rule: what is left out for which reason, and what only looks like it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from longalign_core.config.quality import QualityConfig
from longalign_core.instruct.quality import fault_of_answer

TEXT_EN = (
    "The company wrote to its customers in March. The letter said: We apologise for the delay and will refund "
    "everyone who asks. Its chat programme answered most questions with I'm sorry, but I can't help with that. "
    "Engineers later found that the filter had been set too strictly, and the policy was changed within a week. "
)
TEXT_ZH = (
    "公司在三月给客户写信，为延误道歉，并承诺退款。它的聊天程序大多回答说，抱歉，我无法回答这个问题。"
    "工程师后来发现过滤器设置过严。"
)


def reason(answer: str, question: str = "What happened?", text: str = TEXT_EN, language: str = "en", **bounds: object):
    fault = fault_of_answer(answer, question, (text,), language, QualityConfig(**bounds))
    return fault and fault.reason


@pytest.mark.parametrize("answer", ["", "  \n", "...", "—", "```\n```"])
def test_answer_without_a_letter_or_digit_is_empty(answer):
    assert reason(answer) == "empty reply"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("The letter was sent.<|im_end|>", True),
        ("The letter was sent. [/INST] And then", True),
        ("<think>Let me see.</think> The letter was sent.", True),
        ("The letter was sent.</s>", True),
        ("The letter was sent.<｜end▁of▁sentence｜>", True),
        ("The letter was sent.\n\nHuman: And then?\n\nAssistant: It was read.", True),
        ("The letter was sent.\n\nQuestion: What then?\nAnswer: It was read.", True),
        ("信已寄出。\n\n问题：然后呢？\n回答：读了。", True),
        ("Question: What happened?\n\nThe letter was sent.", False),
        ("The token `<|im_end|>` ends a turn.", False),
        ("It uses <b>bold</b> and <s>struck</s> text.", False),
        ("The user is asked: is it so?", False),
    ],
)
def test_answer_with_what_a_template_left_is_told_from_one_that_explains_it(answer, found):
    language = "zh" if answer.startswith("信") else "en"
    assert reason(answer, language=language) == ("template leftovers" if found else None)


def test_answer_with_a_token_or_a_turn_of_the_document_or_wanted_by_the_question_stays():
    assert reason("Each turn ends with <|im_end|> here.", text="Turns end with <|im_end|>.") is None
    assert reason("It begins so.\nUser: hello there", text="User: hello") is None
    assert reason("Here they are.\nQuestion: What is it?\nAnswer: A letter.", "Write three quiz questions.") is None


def test_answer_in_another_language_than_the_document_is_left_out():
    french = (
        "La société a écrit à ses clients au mois de mars pour présenter ses excuses après le retard des livraisons."
    )
    chinese = "公司在三月份给所有的客户写了一封信，为延误表示道歉，并且承诺退还全部货款，客户们对此表示满意。"
    english = "The company wrote to its customers in March, apologised for the delay, and promised to return the money."
    assert reason(french) == "wrong language"
    assert reason(chinese) == "wrong language"
    assert reason(english, "发生了什么？", TEXT_ZH, "zh") == "wrong language"
    assert reason(english) is None
    assert reason(chinese, "发生了什么？", TEXT_ZH, "zh") is None
    assert reason(french, "Qu'est-ce que la société a écrit à ses clients ?", "Le texte.", "fr") is None
    assert reason(english, "What did they write?", "Le texte.", "fr") is None
    assert reason(french, wrong_language=False) is None


@pytest.mark.parametrize(
    ("answer", "question", "language"),
    [
        ("Yes: 北京 and 上海.", "Which cities?", "en"),
        ("ChatGLM3-6B, Llama-2-13B", "用了哪些模型？", "zh"),
        (
            "该论文使用 ChatGLM3-6B 和 Llama-2-7B 作为基础模型，并采用 FlashAttention 加速训练过程。",
            "用了哪些模型？",
            "zh",
        ),
        (
            "The characters 学 (learn) and 习 (practise) make up the word for study in modern Chinese writing.",
            "How?",
            "en",
        ),
        (
            "论文作者是 Yushi Bai、Xin Lv、Jiajie Zhang、Yuze He、Ji Qi、Lei Hou、Jie Tang 和 Juanzi Li。",
            "作者有哪些？",
            "zh",
        ),
        ("- Yushi Bai\n- Xin Lv\n- Jiajie Zhang\n- Yuze He\n- Ji Qi\n- Lei Hou\n- Jie Tang", "列出论文的作者。", "zh"),
        ("论文有：\n1. Attention Is All You Need\n2. Language Models Are Few-Shot Learners", "列出论文。", "zh"),
        ("巴黎", "哪个城市？", "zh"),
        ("Paris", "Which city?", "en"),
        ("- 12 March 1901\n- 4 April 1902\n- 7 June 1903\n- 1 May 1904\n- 9 May 1905", "List all dates.", "en"),
        ('{"公司": "煤炭公司", "年份": 1900, "买家": ["甲", "乙"]}', "用JSON给出。", "zh"),
        ("| Year | Town | Units |\n|---|---|---|\n| 1900 | 1 | 3 |\n| 1901 | 2 | 6 |", "Make a table.", "en"),
        ("```python\ndef main():\n    return run_everything(with_all=True)\n```", "写出主函数。", "zh"),
        ("def main():\n    x = load(1)\n    return run(x)\n", "写出主函数。", "zh"),
        ("公司在三月份给所有的客户写了一封信，为延误表示道歉，并且承诺退还全部货款。", "Translate the letter.", "en"),
        ("The company wrote a letter to its customers in March.", "用英文概括这封信。", "zh"),
    ],
)
def test_answer_with_foreign_names_code_or_a_translation_asked_for_stays(answer, question, language):
    assert reason(answer, question, "x", language) is None


def sentences(number: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    words = [
        "river",
        "stone",
        "letter",
        "harbour",
        "engine",
        "winter",
        "garden",
        "signal",
        "copper",
        "window",
        "market",
        "bridge",
        "lantern",
        "forest",
    ]
    return " ".join(" ".join(draw.choices(words, k=9)).capitalize() + "." for _ in range(number))


def test_answer_that_copies_the_document_is_left_out_from_the_bounds_on():
    text = sentences(400)
    words = text.split()
    own = sentences(60, seed=1)
    assert reason(own, text=text) is None
    assert reason(" ".join(words[500:600]), text=text) is None, "100 words may be quoted"
    assert reason(" ".join(words[500:700]), text=text) == "copied document"
    assert reason(f"{own} {' '.join(words[500:740])}", text=text) is None, "240 words in a row, a third of the answer"
    assert reason(f"{own} {' '.join(words[500:760])}", text=text) == "copied document"
    assert reason(" ".join(words[500:760]).upper().replace(" ", "\n"), text=text) == "copied document"
    assert reason(" ".join(words[500:760]), text=text, max_copied_words=None, max_copied_share=None) is None
    pieces = " ".join(" ".join(words[at : at + 18]) + " indeed" for at in range(0, 360, 36))
    assert reason(pieces, text=text) == "copied document"


def test_answer_that_was_asked_for_a_quotation_may_be_one_up_to_the_longest():
    text = sentences(400)
    words = text.split()
    for question in ("Quote the passage on the harbour.", "Give the passage word for word.", "请摘录相关段落。"):
        assert reason(" ".join(words[500:700]), question, text=text) is None
        assert reason(" ".join(words[500:760]), question, text=text) == "copied document"


def test_answer_of_a_study_guide_may_have_questions_with_their_answers():
    guide = "## Exercises\n\nQuestion: Why was it sent?\nAnswer: To apologise.\n\nQuestion: When?\nAnswer: In March."
    assert reason(guide, "Write a study guide with exercises and solutions.") is None
    assert reason("## 练习\n\n问题：为何寄信？\n解答：为了道歉。", "写一份学习指南。", TEXT_ZH, "zh") is None
    assert reason(guide) == "template leftovers"


def test_answer_that_copies_a_chinese_document_is_left_out_two_characters_a_word():
    draw = random.Random(3)
    text = "".join(chr(draw.randrange(0x4E00, 0x5000)) for _ in range(3000))
    assert reason(text[1000:1200], "问题？", text, "zh") is None, "100 words"
    assert reason(text[1000:1300], "问题？", text, "zh") == "copied document"


def test_answer_that_only_says_the_question_again_is_left_out():
    question = "Which of the two letters did the company send to its customers in March?"
    assert reason(question, question) == "repeated question"
    assert reason("Sure! " + question.lower(), question) == "repeated question"
    assert (
        reason(f"{question}\n\nThe second one, of which every customer received two printed copies.", question) is None
    )
    assert reason("in March", question) is None


def test_answer_that_says_the_same_over_and_over_is_left_out():
    line = "The letter was sent to all of the customers in March."
    assert reason(" ".join([line] * 8)) == "repetition"
    assert reason("A good beginning of an answer about letters.\n" + "and so on " * 12) == "repetition"
    assert reason("公司给客户写信道歉。" * 20, "发生了什么？", TEXT_ZH, "zh") == "repetition"
    assert reason("It went well" + "哈" * 80, wrong_language=False) == "repetition"
    twice = sentences(20, seed=4)
    assert reason(f"{twice} {twice} {twice}") == "repetition"
    assert reason(f"{twice} {twice} {twice}", max_repeated_share=None) is None
    assert reason("\n".join(f"- {number}. The letter number {number} was sent." for number in range(40))) is None
    assert reason("```\n" + "0 0 0 0 0 0 0 0\n" * 8 + "```\nThis is the empty board.") is None
    assert reason("A ruler:\n" + "-" * 200 + "\nand what is below it.") is None


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ("The letter was sent to all customers in March, the refunds came in April, and the", True),
        ("These are the reasons that the letter gives for it:", True),
        ("信中列出了公司推迟发货的以下几个主要原因，包括供应商延误、天气恶劣、", True),
        ("Here is the code that was asked for:\n```python\ndef main():\n    return 1", True),
        ("Here is the code that was asked for:\n```python\ndef main():\n    return 1\n```", False),
        ("The letter was sent in March", False),
        ("March, April, and", False),
        ("- the first letter to the customers of the company\n- the second letter to the customers", False),
        ("He wrote the letter to those whom he had thought of", False),
    ],
)
def test_answer_that_breaks_off_is_told_only_where_it_is_plain(answer, broken):
    language = "zh" if answer.startswith("信") else "en"
    assert reason(answer, language=language) == ("truncated reply" if broken else None)


def test_answer_outside_the_bounds_of_words_is_left_out():
    assert reason("Yes, it was.", min_words=5) == "too few words"
    assert reason("Yes, it was so.", min_words=4) is None
    assert reason("one two three four five six", max_words=5) == "too many words"
    assert reason("公司道歉", "问？", TEXT_ZH, "zh", max_words=2) is None
    with pytest.raises(ValidationError, match="max_words 3 is below min_words 5"):
        QualityConfig(min_words=5, max_words=3)


@settings(deadline=None)  # the first call compiles
@given(st.text(max_size=400), st.text(max_size=200), st.sampled_from(["en", "zh", "de"]))
def test_any_text_gets_an_answer_from_the_rules_and_always_the_same(answer, text, language):
    first = fault_of_answer(answer, "Why?", (text,), language, QualityConfig())
    assert first == fault_of_answer(answer, "Why?", (text,), language, QualityConfig())


def test_paragraphs_of_real_essays_are_fit_as_answers(test_data: Path):
    paragraphs = [
        paragraph
        for path in sorted((test_data / "needle_haystack").glob("*.txt"))
        for paragraph in path.read_text(encoding="utf-8", errors="replace").split("\n\n")
        if len(paragraph.split()) > 40
    ]
    # Some end with a colon, before a quotation that is a paragraph of its own.
    faults = [(reason(paragraph, "What?", "x", unfinished=False), paragraph) for paragraph in paragraphs]
    wrong = [fault for fault in faults if fault[0]]
    assert len(paragraphs) > 50
    assert len(wrong) <= 0.02 * len(paragraphs), wrong

"""Refusals and filters' messages, told from answers that speak of them."""

from __future__ import annotations

import pytest

from tests.test_instruct_quality import TEXT_ZH, reason


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I cannot assist with that request.",
        "I’m sorry, I can’t help with that.",
        "I am unable to provide a summary of this document because it is copyrighted.",
        "I cannot answer this question based on the text.",
        "Unfortunately, I'm not able to access the document.",
        "Sorry, I can't continue with this conversation.",
        "**I must decline to answer that question.**",
        "As an AI language model, I do not have personal opinions. " + "The book says a good deal about it. " * 30,
        "As a large language model trained by OpenAI, I cannot do this.",
        "The letter was sent in March. The refunds came later. I'm sorry, but I can't assist with this any further.",
        "Part one tells of the delay.\n\nI apologize, but I cannot complete this task as the document is too long.",
        "\"I'm sorry, but I can't help with your request.\"",
        "We are unable to comply with this request.",
        "I'm sorry, but you have not provided the document. Please provide the text and I will be happy to help.",
        "It seems that the document was not included in your message. Please paste it so that I can answer.",
        "I don't have access to the document you mention, so I cannot say what happened in it.",
    ],
)
def test_answer_that_refuses_in_english_is_a_refusal_wherever_it_does(answer):
    assert reason(answer) == "refusal"


@pytest.mark.parametrize(
    "answer",
    [
        "抱歉，我无法回答这个问题。",
        "很抱歉，作为一个人工智能语言模型，我不能提供这方面的内容。",
        "作为AI助手，我没有个人观点，不过书中确实提到了这一点。",
        "对不起，我不能为您提供帮助。",
        "我无法访问您提到的文件，请把内容粘贴过来。",
        "公司在三月写了信，随后退款。工程师修改了过滤器。抱歉，我无法为您继续完成这个任务。",
        "非常抱歉，我暂时无法回答您的问题，请换一个话题。",
        "您没有提供文档内容，请提供后我再回答。",
        "请提供需要总结的文章，以便我为您总结。",
    ],
)
def test_answer_that_refuses_in_chinese_is_a_refusal_wherever_it_does(answer):
    assert reason(answer, "发生了什么？", "公司在三月给客户写信。", "zh") == "refusal"


@pytest.mark.parametrize(
    "answer",
    [
        "The company apologised for the delay and could not help everyone at once.",
        "The chat programme said \"I'm sorry, but I can't help with that\" to most customers.",
        "It answered: I'm sorry, but I can't help with that.",
        "I'm sorry, but I can't help with that.",  # word for word from the document, asked for a quotation
        'In chapter two the robot says: "I cannot assist you. As an AI language model, I have no feelings."',
        "Typical refusals in the study were:\n\n- I'm sorry, but I can't assist with that.\n- I cannot answer this.",
        "> I'm sorry, but I can't assist with this request.\n\nThis is how the programme replied to the editor.",
        "She says she is sorry, but that she cannot help her brother, and leaves the town in the morning.",
        "I cannot help but notice that the author returns to the sea in every chapter of the book.",
        "As an AI researcher, she spent ten years on vision before she turned to language.",
        "As an AI company, it depends on a few suppliers of chips.",
        "Sorrow and apology are the two themes of the letter. Sorry seems to be the hardest word in it.",
        "Please send the documents to the office in May, the letter says, and no refund will be lost.",
        "The text was provided in March, and the document is included with the letter.",
        "The text does not say who wrote the letter.",
        "You have to provide the text of the contract within ten days.",
        "The narrator fails: I cannot go on, he says, and then he goes on all the same.",
        "The function returns `I'm sorry, but I can't help with that request.` when the filter matches.",
        "The policy was applied wrongly: messages were filtered because the threshold had been set too low.",
        "The response was slow, and the prompt was rewritten twice before the policy changed.",
        "We cannot determine the age of the rock from the lead content alone, the authors argue; they therefore use "
        "two further isotopes, compare the results with those of three earlier surveys, and find that the rock is "
        "older than all of them had said. The second half of the paper explains where the difference comes from, "
        "and why the earlier surveys had to fail: they had taken the samples from the upper layers, where water had "
        "washed out most of the lead, and they had not corrected for it in any way.",
    ],
)
def test_answer_that_speaks_of_refusals_in_english_stays(answer):
    assert reason(answer) is None


@pytest.mark.parametrize(
    "answer",
    [
        "公司为延误道歉，并说无法同时帮助所有客户。",
        "聊天程序大多回答“抱歉，我无法回答这个问题”，客户对此很不满意。",
        "作者写道：“对不起，我不能帮助你。”然后离开了城市。",
        "作为人工智能领域的研究者，他花了十年时间研究视觉问题。",
        "作为一个人工智能公司，它依赖少数几家芯片供应商。",
        "我不能不说，这本书的每一章都写到了大海，这正是作者的用意。",
        "内容违规的帖子由管理员删除，用户可以在七天之内提出申诉。",
        "文中没有提到写信的人是谁。",
        "请客户提供合同文本，这是信中的要求。",
        "他向母亲表示抱歉，因为他没有办法按时回家过年。",
    ],
)
def test_answer_that_speaks_of_refusals_in_chinese_stays(answer):
    assert reason(answer, "发生了什么？", TEXT_ZH, "zh") is None


@pytest.mark.parametrize(
    "answer",
    [
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
        "modify your prompt and retry.",
        "The response was filtered due to the prompt triggering our content management policy.",
        "Output blocked by content filtering policy",
        "Input data may contain inappropriate content.",
        "{'error': {'message': 'The response was filtered'}}",
        "系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免输入易产生敏感内容的提示语，感谢您的配合。",
        "您输入的内容涉嫌违规，请修改后重试。",
        "该内容违规，已被屏蔽。",
        "生成内容违规",
    ],
)
def test_answer_that_is_a_filters_message_is_told(answer):
    assert reason(answer) == "content filter"

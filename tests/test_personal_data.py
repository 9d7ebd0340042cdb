import time

import pytest

from longalign_core.corpora.cleaning import finish_document
from longalign_core.corpora.prose.personal_data import scrub_personal_data
from longalign_core.corpora.reading import RawDocument
from tests.corpora_inputs import corpus

KINDS = ("email", "ip_address", "phone")


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("Write to jane.doe+news@mail.example.co.uk.", "Write to [email]."),
        ("联系我：a_b@qq.com，谢谢", "联系我：[email]，谢谢"),
        ("mailto:x@example.org>", "mailto:[email]>"),
        ("from 93.184.216.34, port 80", "from [ip_address], port 80"),
        ("[2606:2800:220:1:248:1893:25c8:1946]:443", "[[ip_address]]:443"),
        ("call +49 (30) 1234-5678.", "call [phone]."),
        ("call (212) 555-0187 or 212-555-0187", "call [phone] or [phone]"),
        ("电话13812345678，或 138 1234 5678。", "电话[phone]，或 [phone]。"),
    ],
)
def test_scrub_personal_data_is_replaced(text, scrubbed):
    assert scrub_personal_data(text, KINDS) == scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "@decorator\ndef f(a, b): return a @ b",
        "127.0.0.1, 192.168.0.1, 10.200.30.40, 224.0.0.251 and 256.300.1.1",
        "See section 9.7.4.4, version 101.12.13.14 and 1.2.3.4.5.",
        "std::vector<int> a::b; 12:30:45; fe80::1; ::1",
        "1234567890123456, 3.14159265358979, 2024-05-06 2024-2025, x = 13812345678901",
        "https://example.org/13812345678 order=13812345678",
        "1 + 2345678",
    ],
)
def test_scrub_personal_data_other_text_stays(text):
    assert scrub_personal_data(text, KINDS) == text


def test_scrub_personal_data_only_kinds_asked_for():
    assert scrub_personal_data("a@example.org 93.184.216.34", ["email"]) == "[email] 93.184.216.34"


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "a@", "a@a.", "a@-", "1.", "1", "2001:", "2a:", "+1", "+1 ", "+1(", "(1", "1-", "138 ", "1.1.1.1."],
)
def test_scrub_personal_data_adversarial_text_takes_linear_time(piece):
    text = piece * (400_000 // len(piece))
    start = time.process_time()
    scrub_personal_data(text, KINDS)
    assert time.process_time() - start < 2


def test_finish_document_code_is_scrubbed_too():
    config = corpus("text", scrub=["email"])
    assert finish_document(config, RawDocument("a", "# by a@example.org", "a", is_code=True)).text == "# by [email]"

import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from longalign_core.corpora.selecting.lengths import count_lengths, load_counter
from longalign_core.errors import InputError
from longalign_core.records import Document, text_sha256


def byte_level_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat, the hat on the cat"] * 3, trainer)
    return tokenizer


def saved(tokenizer: Tokenizer, folder):
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def document(text: str) -> Document:
    return Document(id=text[:9], text=text, source="s", language="en", origin="", sha256=text_sha256(text))


def test_count_lengths_equals_the_tokenizer_one_text_at_a_time(tmp_path):
    tokenizer = byte_level_tokenizer()
    texts = ["the cat", "猫" * 50, "the hat on the mat " * 40, "x", "no such word zzz"] * 30
    counter = load_counter(saved(tokenizer, tmp_path))
    lengths = [one.num_tokens for one in count_lengths(map(document, texts), counter, min_tokens=1)]
    assert lengths == [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]


def test_count_lengths_byte_filter_leaves_out_only_what_is_too_short(tmp_path):
    tokenizer = byte_level_tokenizer()
    counter = load_counter(saved(tokenizer, tmp_path))
    texts = ["z" * size for size in range(1, 40)] + ["猫" * size for size in range(1, 20)]
    for text, one in zip(texts, count_lengths(map(document, texts), counter, min_tokens=20), strict=True):
        exact = len(tokenizer.encode(text).ids)
        assert one.num_tokens == exact or (one.num_tokens is None and exact < 20)
        assert one.num_bytes == len(text.encode())
    assert any(one.num_tokens is None for one in count_lengths(map(document, texts), counter, min_tokens=20))


def test_count_lengths_tokenizer_that_unfolds_text_is_never_filtered(tmp_path):
    tokenizer = Tokenizer(models.Unigram([("a", -1.0), ("<unk>", -9.0)], unk_id=1))
    tokenizer.normalizer = normalizers.Replace("a", "aaaa")
    counter = load_counter(saved(tokenizer, tmp_path))
    assert [one.num_tokens for one in count_lengths([document("aaa")], counter, min_tokens=10)] == [12]


def test_load_counter_saved_truncation_padding_and_special_tokens_do_not_count(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_level_tokenizer()
    plain = len(tokenizer.encode("the cat sat on the mat").ids)
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)
    assert load_counter(saved(tokenizer, tmp_path)).count(["the cat sat on the mat"]) == [plain]


@pytest.mark.parametrize("content", [None, "{not json", json.dumps({"version": "1.0"})])
def test_load_counter_folder_without_usable_tokenizer_raises_input_error(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match=r"selection\.tokenizer"):
        load_counter(tmp_path)

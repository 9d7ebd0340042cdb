"""ChatGLM3's folder brought into transformers' GLM class: weights, tokenizer, and the stages that meet it."""

from __future__ import annotations

import pickle

import orjson
import pytest
import torch

from longalign_core.chat_format import ChatFormat
from longalign_core.chatglm3.folder import is_chatglm3
from longalign_core.chatglm3.sentencepiece_model import read_sentencepiece
from longalign_core.chatglm3.tokenizer import CONTROL_TOKENS, write_tokenizer
from longalign_core.config.batching import EncodingConfig
from longalign_core.config.runtime import Runtime
from longalign_core.errors import InputError
from longalign_core.record_files import write_records
from longalign_core.records import Conversation, Message
from longalign_core.stages.encoding import encode
from longalign_core.stages.model_folders import model_path, tokenizer_path
from longalign_core.token_store import TokenStore
from longalign_core.training.chatglm3_weights import convert
from longalign_core.training.isolation import check_isolation
from longalign_core.training.model import load_model
from longalign_core.training.plain_text import PlainText
from tests.chat_format_setup import chat
from tests.chatglm3_oracle import SENTENCES, SHAPE, forward, train_sentencepiece, write_chatglm3

TEXTS = (
    *SENTENCES,
    "",
    " ",
    "a",
    "  two  spaces  ",
    "\n",
    "tab\there\r\n",
    "emoji 😀 and ﬁ ligature, ｆｕｌｌ width",
    "<s> </s> <unk> ▁ <0x41>",
    "   indented\n\n\n",
)


def fast_tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("safetensors", [False, True], ids=["bin", "safetensors"])
@pytest.mark.parametrize("changes", [{}, {"rope_ratio": 50}, {"add_qkv_bias": True, "kv_channels": 16}])
def test_convert_logits_equal_those_of_the_published_architecture(tmp_path, changes, safetensors):
    from transformers import AutoModelForCausalLM, GlmForCausalLM

    state = write_chatglm3(tmp_path / "source", safetensors=safetensors, **changes)
    convert(tmp_path / "source", tmp_path / "model")
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert type(model) is GlmForCausalLM
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.randint(
        len(state["transformer.output_layer.weight"]), (40,), generator=torch.Generator().manual_seed(1)
    )
    expected = forward(state, SHAPE | changes, ids)
    found = model(ids[None], use_cache=False).logits[0].detach()
    # The class works its angles, norms and softmax out in float32.
    assert (found - expected).norm() / expected.norm() < 1e-6


def test_convert_model_trains_on_packs_and_stops_at_the_next_speaker(tmp_path):
    from transformers import GenerationConfig

    write_chatglm3(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "model")
    model = load_model(tmp_path / "model", precision="fp32", trust_remote_code=False, gradient_checkpointing=False)
    check_isolation(model, torch.device("cpu"))
    tokenizer = fast_tokenizer(tmp_path / "model")
    stops = [tokenizer.convert_tokens_to_ids(name) for name in ("</s>", "<|user|>", "<|observation|>")]
    assert GenerationConfig.from_pretrained(tmp_path / "model").eos_token_id == stops
    assert not (tmp_path / "model.part").exists()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byte_fallback": False, "vocab_size": 200},
        {"remove_extra_whitespaces": True},
        {"normalization_rule_name": "nfkc"},
        {"add_dummy_prefix": False},
    ],
    ids=["chatglm3", "no-bytes", "squeezed", "nfkc", "no-space"],
)
def test_write_tokenizer_ids_equal_those_of_sentencepiece(tmp_path, options):
    oracle = train_sentencepiece(tmp_path, **options)
    controls = write_tokenizer(tmp_path, tmp_path / "fast")
    tokenizer = fast_tokenizer(tmp_path / "fast")
    size = oracle.vocab_size()
    assert controls == {name: size + number for number, name in enumerate(CONTROL_TOKENS)} | {"</s>": oracle.eos_id()}
    for number in range(size):
        assert tokenizer.convert_ids_to_tokens(number) == oracle.id_to_piece(number)
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert ids == oracle.encode(text), text
        if text and "▁" not in text and not options:
            assert tokenizer.decode(ids, skip_special_tokens=True).lstrip(" ") == text.lstrip(" ")
    assert tokenizer("a")["input_ids"][:2] == [controls["[gMASK]"], controls["sop"]]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("</s>", "<unk>", None)


def test_control_tokens_after_the_published_pieces_have_the_published_ids():
    ids = {name: 64_789 + number for number, name in enumerate(CONTROL_TOKENS)}
    assert (ids["[gMASK]"], ids["sop"]) == (64_790, 64_792)
    assert (ids["<|user|>"], ids["<|assistant|>"], ids["<|observation|>"]) == (64_795, 64_796, 64_797)


def test_read_sentencepiece_pieces_equal_those_of_the_package(tmp_path):
    oracle = train_sentencepiece(tmp_path)
    model = read_sentencepiece(tmp_path / "tokenizer.model")
    assert [piece.text for piece in model.pieces] == [oracle.id_to_piece(i) for i in range(oracle.vocab_size())]
    assert [piece.score for piece in model.pieces] == [oracle.get_score(i) for i in range(oracle.vocab_size())]
    assert (model.has_bytes, model.adds_space, model.squeezes_spaces) == (True, True, False)


@pytest.mark.parametrize("content", [b"", b"\x0a", b"IyBhIHRpa3Rva2VuIGZpbGU= 0\n", b"\xff" * 40])
def test_read_sentencepiece_other_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(InputError, match="no sentencepiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")


def test_tokenizer_path_chatglm_without_its_sentencepiece_model_is_refused(tmp_path):
    source = tmp_path / "chatglm"
    source.mkdir()
    (source / "config.json").write_bytes(orjson.dumps({"model_type": "chatglm"}))
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    with pytest.raises(InputError, match=r"tokenizer\.model is not there"):
        tokenizer_path(str(source), runtime)


def test_encode_conversation_equals_what_chatglm3_builds_message_by_message(tmp_path):
    oracle = train_sentencepiece(tmp_path)
    controls = write_tokenizer(tmp_path, tmp_path / "fast")
    turns = [("user", "What does it say?"), ("assistant", "Many facts."), ("user", "一个"), ("assistant", "答案 17")]
    conversation = Conversation(
        id="one",
        messages=tuple(Message(role=role, content=content) for role, content in turns),
        source="here",
        task_type="general",
        language="en",
    )
    (encoded,) = ChatFormat.load(tmp_path / "fast").encode([conversation], 1_000)
    expected, targets = [controls["[gMASK]"], controls["sop"]], [False, False]
    for role, content in turns:  # a role, the ids of a line break, the ids of the message
        text = oracle.encode("\n") + oracle.encode(content)
        expected += [controls[f"<|{role}|>"], *text]
        # After an answer the model writes the next speaker.
        targets += [len(targets) > 2 and role == "user", *[role == "assistant"] * len(text)]
    assert encoded.token_ids.tolist() == [*expected, controls["</s>"]]
    assert encoded.is_target.tolist() == [*targets, True]


def test_plain_text_of_chatglm3_begins_with_its_two_tokens(tmp_path):
    from tests.test_extension_stage import document

    oracle = train_sentencepiece(tmp_path)
    controls = write_tokenizer(tmp_path, tmp_path / "fast")
    ((_, ids),) = PlainText(tmp_path / "fast", trust_remote_code=False).encode([document(0, "many facts")])
    assert ids == [controls["[gMASK]"], controls["sop"], *oracle.encode("many facts"), oracle.eos_id()]


def test_model_path_converts_a_chatglm3_folder_once_and_runs_none_of_its_code(tmp_path):
    source = tmp_path / "chatglm3"
    write_chatglm3(source)
    (source / "modeling_chatglm.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    folder = model_path(str(source), runtime)
    assert folder.is_relative_to(tmp_path / "scratch")
    assert load_model(folder, precision="fp32", trust_remote_code=False, gradient_checkpointing=False).vocabulary
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert model_path(str(source), runtime) == folder
    assert (folder / "config.json").stat().st_mtime_ns == stamp
    tokenizer = tokenizer_path(str(source), runtime)
    assert fast_tokenizer(tokenizer).get_vocab() == fast_tokenizer(folder).get_vocab()
    assert not (tmp_path / "it-ran").exists()
    # Other weights, another folder.
    write_chatglm3(source, rope_ratio=2)
    assert model_path(str(source), runtime) != folder


def test_encode_stage_takes_a_chatglm3_folder_as_published(tmp_path):
    source = tmp_path / "chatglm3"
    write_chatglm3(source)
    write_records(tmp_path / "conversations.parquet", [chat("many facts?", "一个", id="one")], Conversation)
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    (tmp_path / "out").mkdir()
    encode.function(EncodingConfig(tokenizer=str(source)), {"conversations": (tmp_path,)}, tmp_path / "out", runtime)
    ids, is_target = TokenStore.open(tmp_path / "out").sequence(0)
    tokenizer = fast_tokenizer(tokenizer_path(str(source), runtime))
    assert tokenizer.decode(ids[~is_target]) == "[gMASK]sop<|user|> \n many facts?<|assistant|>"
    assert tokenizer.decode(ids[is_target]) == "\n 一个</s>"


def test_model_path_other_folder_is_used_as_it_is(tmp_path):
    (tmp_path / "config.json").write_bytes(orjson.dumps({"model_type": "llama"}))
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    assert model_path(str(tmp_path), runtime) == tokenizer_path(str(tmp_path), runtime) == tmp_path
    assert not is_chatglm3(tmp_path / "nothing")


class Payload:
    """What a hostile weights file would run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_convert_weights_that_would_run_code_are_refused_and_do_not_run_it(tmp_path, zipped):
    write_chatglm3(tmp_path / "source", files=1)
    mark = tmp_path / "it-ran"
    file = tmp_path / "source" / "pytorch_model-00001-of-00001.bin"
    if zipped:
        torch.save({"transformer.output_layer.weight": Payload(mark)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        convert(tmp_path / "source", tmp_path / "model")
    assert not mark.exists() and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_bit": 4}, "quantization_bit 4"),
        ({"multi_query_attention": False}, "multi_query_attention False"),
        ({"pre_seq_len": 128}, "pre_seq_len 128"),
        ({"_name_or_path": "THUDM/chatglm2-6b-32k"}, "is a ChatGLM2"),
        ({"num_layers": 3}, "the weights lack model.layers.2"),
        ({"ffn_hidden_size": 48}, "down_proj.weight of shape"),
    ],
)
def test_convert_other_form_is_refused_with_what_differs(tmp_path, changes, message):
    write_chatglm3(tmp_path / "source")
    config = tmp_path / "source" / "config.json"
    config.write_bytes(orjson.dumps(orjson.loads(config.read_bytes()) | changes))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "source", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_model_path_folder_without_weights_says_what_is_missing(tmp_path):
    source = tmp_path / "chatglm3"
    write_chatglm3(source)
    for file in source.glob("*.bin"):
        file.unlink()
    runtime = Runtime(store=str(tmp_path / "store"), scratch=tmp_path / "scratch")
    with pytest.raises(InputError, match=r"cannot be converted: chatglm3 holds no weights"):
        model_path(str(source), runtime)

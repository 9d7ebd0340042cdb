"""ChatGLM3's sentencepiece tokenizer as one of the tokenizers library, with every id as it was."""

from __future__ import annotations

import logging
from pathlib import Path

import orjson
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from longalign_core.chatglm3.sentencepiece_model import PieceKind, SentencePieceModel, read_sentencepiece
from longalign_core.named_templates import NAMED_TEMPLATES

log = logging.getLogger(__name__)

MODEL_FILE = "tokenizer.model"
# Its own code numbers them after the pieces, in this order.
CONTROL_TOKENS = (
    "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
)  # fmt: skip
_SPACE = "▁"


def write_tokenizer(source: Path, folder: Path) -> dict[str, int]:
    """Convert the tokenizer of a ChatGLM3 folder, its chat template included.

    Args:
        source: Holds tokenizer.model.
        folder: Where to write what transformers loads.

    Returns:
        Ids of the control tokens and of the end token.

    Raises:
        InputError: tokenizer.model is not there, or no sentencepiece model of byte pairs.
    """
    from transformers import PreTrainedTokenizerFast  # takes seconds, which planning a run must not

    tokenizer = fast_tokenizer(read_sentencepiece(source / MODEL_FILE))
    roles = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **roles,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=NAMED_TEMPLATES["chatglm3"].source,
    )
    fast.save_pretrained(folder)
    settings = folder / "tokenizer_config.json"
    values = orjson.loads(settings.read_bytes())
    # The name that every version of transformers knows.
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    known = tokenizer.get_vocab()
    return {name: known[name] for name in (*CONTROL_TOKENS, "</s>")}


def fast_tokenizer(model: SentencePieceModel) -> Tokenizer:
    """The tokenizer of a sentencepiece model, with ChatGLM3's control tokens after its pieces.

    Each text between control tokens is encoded as sentencepiece encodes it alone, as ChatGLM3's own code
    does with each message.
    """
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    own = [piece.text for piece in model.pieces if piece.kind in (PieceKind.CONTROL, PieceKind.UNKNOWN)]
    named = [piece.text for piece in model.pieces if piece.kind is PieceKind.USER_DEFINED]
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            _merges(model, vocabulary),
            unk_token=next(piece.text for piece in model.pieces if piece.kind is PieceKind.UNKNOWN),
            fuse_unk=True,
            byte_fallback=model.has_bytes,
        )
    )
    tokenizer.normalizer = _normalizer(model)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    if named:
        log.warning(
            "the tokenizer has user-defined pieces (%s); text after one of them gets a space token that sentencepiece "
            "would not put",
            ", ".join(map(repr, named[:5])),
        )
        tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in named])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in own])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROL_TOKENS])
    first = tokenizer.token_to_id("[gMASK]")
    assert first == len(model.pieces) + 1, "control tokens follow the pieces"
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] sop $A",
        pair="[gMASK] sop $A $B",
        special_tokens=[("[gMASK]", first), ("sop", tokenizer.token_to_id("sop"))],
    )
    return tokenizer


def _normalizer(model: SentencePieceModel) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.squeezes_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.adds_space:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _merges(model: SentencePieceModel, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two, the best piece first: sentencepiece merges by its score."""
    merges = []
    for number, piece in enumerate(model.pieces):
        if piece.kind is not PieceKind.NORMAL:
            continue
        halves = [(piece.text[:cut], piece.text[cut:]) for cut in range(1, len(piece.text))]
        known = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        merges += [(-piece.score, number, half) for half in known]
    merges.sort(key=lambda merge: merge[:2])
    return [half for _, _, half in merges]

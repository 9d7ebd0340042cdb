"""What a run would miss later: files and settings of its recipe, found before anything is computed or paid for."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path

import orjson

from longalign_core.config import Recipe
from longalign_core.config.batching import EncodingConfig
from longalign_core.config.loading import sources_of
from longalign_core.errors import InputError
from longalign_core.pipeline import STAGES
from longalign_core.training.base_model import check_positions
from longalign_core.training.vocabularies import check_same_vocabulary

# The stage that first needs a section's files.
_FIRST_USE = {
    "corpora": "ingest",
    "selection": "select",
    "instruct": "instruct",
    "mixture": "mixture",
    "encoding": "encode",
    "training": "train",
    "evaluation": "evaluate",
}


# What `--checkpoint` carries out.
_EVALUATION = ("evaluate", "scorecard")
# Stages with tables and a page of their own.


def check_until(until: str | None) -> None:
    """Raise InputError when `until` is no stage."""
    if until is not None and until not in STAGES:
        near = difflib.get_close_matches(until, STAGES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no stage {until!r}; --until takes one of {', '.join(STAGES)}{hint}")


def check_inputs(recipe: Recipe, until: str | None, checkpoint: str | None = None) -> None:
    """Find what a run would miss later, before anything is computed or paid for.

    Args:
        recipe: What is to be made.
        until: Last stage to carry out; None for all.
        checkpoint: A checkpoint that alone is to be evaluated; None for the whole pipeline.

    Raises:
        InputError: `until` is no stage of the recipe, or a file that the recipe names is not there.
    """
    check_until(until)
    if checkpoint is not None:
        if until not in (None, *_EVALUATION):
            raise InputError(f"--checkpoint goes with --until {' or '.join(_EVALUATION)} alone; leave one of them out")
        _check_sources(recipe, "evaluation")
        return
    if until == "extend" and not recipe.extension.enabled:
        raise InputError("--until extend: this recipe does not extend its base model; set extension.enabled=true")
    if until == "protect" and not recipe.cleaning.decontamination_words:
        raise InputError(
            "--until protect: this recipe protects no texts of its evaluation; set cleaning.decontamination_words=13"
        )
    left_out = _left_out(recipe)
    if until in left_out:
        raise InputError(
            f"--until {until}: suite {recipe.mixture.suite} takes no long conversations, so this recipe has no such "
            "stage; set mixture.suite=10k, or stop at a later one"
        )
    last = STAGES.index(until or STAGES[-1])
    if recipe.cleaning.decontamination_words and STAGES.index("protect") <= last and "protect" not in left_out:
        _check_protected(recipe)
    if STAGES.index("encode") <= last:
        _check_chat_template(recipe.encoding)
    if STAGES.index("train") <= last:
        _check_base_model(recipe)
    for section, stage in _FIRST_USE.items():
        if STAGES.index(stage) > last or stage in left_out:
            continue
        _check_sources(recipe, section)


def _check_sources(recipe: Recipe, section: str) -> None:
    value = getattr(recipe, section)
    for item in value if isinstance(value, tuple) else (value,):
        name = f"{section}.{item.name}" if isinstance(value, tuple) else section
        for place, source in sources_of(item, name):
            if not source.startswith("hub:") and "://" not in source and not Path(source).exists():
                raise InputError(
                    f"{place} names {source}, which does not exist; correct the path in the recipe, "
                    "or put the data there"
                )


def _left_out(recipe: Recipe) -> tuple[str, ...]:
    """Stages that the recipe's suite has no use for."""
    documents = () if recipe.needs_documents else ("ingest", "protect", "clean", "select")
    return documents if recipe.mixture.takes_long else (*documents, "instruct")


def _check_protected(recipe: Recipe) -> None:
    for one in recipe.protected_texts().sources:
        if not one.location.startswith("hub:") and "://" not in one.location and not Path(one.location).exists():
            raise InputError(
                f"{one.name} names {one.location}, which does not exist; cleaning.decontamination_words needs the "
                "evaluation's texts when the dataset is made: put them there, or set it to null"
            )


def _check_base_model(recipe: Recipe) -> None:
    """`train` would refuse the base model too, but only after all calls were paid for. One at the hub is left to it."""
    base_model = Path(recipe.training.base_model)
    if not (base_model / "config.json").is_file():
        return
    check_same_vocabulary(Path(recipe.encoding.tokenizer), base_model)
    extension = recipe.extension
    if not (extension.enabled and extension.context_tokens >= recipe.batching.capacity):
        check_positions(base_model, recipe.batching.capacity)


def _check_chat_template(encoding: EncodingConfig) -> None:
    """`encode` would refuse a tokenizer without a template too, but only after all calls were paid for."""
    folder = Path(encoding.tokenizer)
    settings = folder / "tokenizer_config.json"
    if encoding.template is not None or not settings.is_file() or not (folder / "tokenizer.json").is_file():
        return
    with suppress(orjson.JSONDecodeError, AttributeError):  # damaged files are for `encode` to refuse
        in_settings = orjson.loads(settings.read_bytes()).get("chat_template")
        in_files = [folder / name for name in ("chat_template.jinja", "additional_chat_templates")]
        if not in_settings and not any(file.exists() for file in in_files):
            raise InputError(
                f"encoding.tokenizer {encoding.tokenizer} has no chat template; set encoding.template to the name of "
                "one of ours (`longalign keys encoding` lists them), or name the tokenizer of a chat model"
            )

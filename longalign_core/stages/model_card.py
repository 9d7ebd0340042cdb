"""The model card of a checkpoint: `README.md` as the hub reads it, with where its data came from."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq
import yaml

from longalign_core.config.runtime import Runtime
from longalign_core.config.training import TrainingConfig
from longalign_core.sources import HUB, parse_hub_id, weights_fingerprint
from longalign_core.stage import Publisher
from longalign_core.stages.dataset_card import CARD as CARD
from longalign_core.stages.dataset_card import CONVERSATIONS, markdown_table
from longalign_core.stages.licences import NOT_STATED, read_licences
from longalign_core.store import Manifest

if TYPE_CHECKING:
    from longalign_core.batch_plan import BatchPlan

_FRONT = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_LICENCE_FIELDS = ("license", "license_name", "license_link")
_LOADING = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

where = "..."  # this folder, or its id on the hub
tokenizer = AutoTokenizer.from_pretrained(where)
model = AutoModelForCausalLM.from_pretrained(where, device_map="auto")
messages = [{"role": "user", "content": "…a long document, and a question about it…"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
reply = model.generate(**prompt.to(model.device), max_new_tokens=512)
```

Or `vllm serve` with the folder. `chat_template.jinja` is the template it was trained with, and generation ends
where the assistant's turn does."""
_LIMITS = (
    "It was not tested for safety; what it says may be wrong. It has the manners and the gaps of its base model and of "
    "the models that wrote its training data, whose providers' terms may restrict its use. How well it does is for a "
    "scorecard to say, not for this card."
)


class ModelCard:
    """The cards of a training run's models.

    Args:
        config: How it is trained.
        plan: On which batches.
        tokens: Folder of the token store.
        base_model: Folder of the base model.
        train: Address of the training.
        publisher: Knows what the training is made from.
        runtime: Where hub revisions are locked.
    """

    def __init__(
        self,
        config: TrainingConfig,
        plan: BatchPlan,
        tokens: Path,
        base_model: Path,
        train: str,
        publisher: Publisher,
        runtime: Runtime,
    ) -> None:
        self._config, self._plan, self._tokens, self._base_model = config, plan, tokens, base_model
        self._train, self._publisher, self._runtime = train, publisher, runtime

    def text(self, folder: Path, step: int) -> str:
        """The card of the model after `step` optimizer steps, which lies in `folder`."""
        front = {
            **self._base_licence,
            "library_name": "transformers",
            "pipeline_tag": "text-generation",
            **self._hub_base,
            **({"language": self._languages} if self._languages else {}),
            "tags": ["long-context", "instruction-tuning", "longalign"],
        }
        num_steps = self._plan.meta.num_steps
        parts = [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
            f"# {self._base_name}, aligned on long inputs",
            f"A language model fine-tuned with LongAlign to follow instructions over long inputs, after optimizer step "
            f"{step:,} of {num_steps:,}.",
            "## How to load it\n\n" + _LOADING,
            "## Base model\n\n" + self._base(),
            "## Training\n\n" + markdown_table(("setting", "value"), self._figures(folder, step)),
            "## Training data\n\n" + self._data,
            "## Lineage\n\n" + self._lineage(),
            f"## Limits\n\n{_LIMITS}",
        ]
        return "\n\n".join(parts) + "\n"

    @cached_property
    def _ancestors(self) -> list[Manifest]:
        return self._publisher.ancestors()

    @cached_property
    def _extension(self) -> dict[str, Any]:
        """The extension that the training began from, as its manifest has it; empty where there was none."""
        found = [one.config["extension"] for one in self._ancestors if one.stage == "extend"]
        return dict(found[0]) if found else {}

    @property
    def _base_name(self) -> str:
        source = self._config.base_model
        return str(parse_hub_id(source)["id"]) if source.startswith(HUB) else Path(source).name

    @property
    def _hub_base(self) -> dict[str, str]:
        return {"base_model": self._base_name} if self._config.base_model.startswith(HUB) else {}

    @cached_property
    def _base_licence(self) -> dict[str, str]:
        """What the base model's own card says of its licence; the licence goes on to what is made of it."""
        values = front_matter(self._base_model / CARD)
        return {name: values[name] for name in _LICENCE_FIELDS if isinstance(values.get(name), str)}

    def _base(self) -> str:
        licence = self._base_licence.get("license_name") or self._base_licence.get("license")
        digest = weights_fingerprint(self._config.base_model, self._runtime)
        revision = "revision" if self._config.base_model.startswith(HUB) else "sha256 of its files"
        said = f"whose card states the licence {licence}" if licence else "whose licence is not stated beside it"
        text = f"`{self._base_name}` ({revision} `{digest}`), {said}. Its licence goes on to this model."
        if self._extension:
            how = "YaRN" if self._extension.get("method") == "yarn" else "a larger RoPE base"
            text += (
                f" Its context was extended first: {how}, continued pre-training on "
                f"{self._extension['num_tokens']:,} tokens."
            )
        return text

    def _figures(self, folder: Path, step: int) -> list[tuple[str, str]]:
        config, meta, optimizer = self._config, self._plan.meta, self._config.optimizer
        tokens, targets = self._plan.tokens_until(step)
        shape = orjson.loads((folder / "config.json").read_bytes())
        rows = [
            ("optimizer steps", f"{step:,} of {meta.num_steps:,}, {meta.epochs} epochs planned"),
            ("tokens", f"{tokens:,}, of them {targets:,} in the loss"),
            ("context of the model", f"{shape.get('max_position_embeddings', NOT_STATED):,}"),
            ("positions", f"`{orjson.dumps(shape.get('rope_parameters')).decode()}`"),
            ("packs", f"{meta.packs_per_step} a step, up to {meta.capacity:,} tokens each, strategy `{meta.strategy}`"),
            (
                "loss",
                f"target token weighs N^-{meta.alpha:g} in a sequence of N of them, normaliser `{meta.normaliser}`",
            ),
            ("precision", config.precision),
            (
                "optimizer",
                f"AdamW, learning rate {optimizer.learning_rate:g} ({optimizer.schedule}, warm-up "
                f"{optimizer.warmup_fraction:g}), betas {optimizer.beta1:g} and {optimizer.beta2:g}, epsilon "
                f"{optimizer.epsilon:g}, weight decay {optimizer.weight_decay:g}, gradient norm up to "
                f"{optimizer.clip_norm:g}",
            ),
            ("seed", str(config.seed)),
        ]
        if self._extension:
            rows.append(("extended to", f"{self._extension['context_tokens']:,} tokens"))
        if config.lora:
            rows.append(("LoRA", f"rank {config.lora.rank}, alpha {config.lora.alpha}, merged into the weights"))
        return rows

    @cached_property
    def _conversations(self) -> Counter[tuple[str, str, str]]:
        """Conversations of the training set by source, language and licence."""
        counts: Counter[tuple[str, str, str]] = Counter()
        mixtures = [one for one in self._ancestors if one.stage == "mixture"]
        file = self._publisher.file_of(mixtures[0], CONVERSATIONS) if mixtures else None
        if file is None:
            return counts
        stated = {one.source: one.licence for one in read_licences(self._tokens)}
        columns = ["source", "language", "licence"]
        for batch in pq.ParquetFile(file).iter_batches(columns=columns, batch_size=65_536):
            for source, language, licence in zip(*(batch[name].to_pylist() for name in columns), strict=True):
                counts[source, language or NOT_STATED, licence or stated.get(source) or NOT_STATED] += 1
        return counts

    @property
    def _languages(self) -> list[str]:
        return sorted({language for _, language, _ in self._conversations if _LANGUAGE.fullmatch(language)})

    @cached_property
    def _data(self) -> str:
        if not self._conversations:
            return "Where the conversations came from is not recorded."
        passed_on = {
            one.source: {True: "yes", False: "no", None: NOT_STATED}[one.redistributable]
            for one in read_licences(self._tokens)
        }
        rows = [
            (*key, f"{number:,}", passed_on.get(key[0], NOT_STATED))
            for key, number in sorted(self._conversations.items())
        ]
        headings = ("source", "language", "licence", "conversations", "texts may be passed on")
        return (
            markdown_table(headings, rows)
            + "\n\nThe texts stay under the licences of their sources; they are not part of this model's files."
        )

    def _lineage(self) -> str:
        rows = [("train", f"`{self._train}`"), *((one.stage, f"`{one.address}`") for one in self._ancestors)]
        return markdown_table(("stage", "artifact"), rows)


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML that a hub card begins with; empty where there is none that can be read."""
    if not card.is_file() or not (found := _FRONT.match(card.read_text(encoding="utf-8", errors="replace"))):
        return {}
    try:
        values = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}


def with_licence(text: str, licence: str) -> str:
    """A card that states another licence."""
    found = _FRONT.match(text)
    values = yaml.safe_load(found[1]) if found else {}
    values = {"license": licence} | {name: value for name, value in values.items() if name not in _LICENCE_FIELDS}
    body = text[found.end() :] if found else text
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n{body}"

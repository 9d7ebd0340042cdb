"""What the training benchmark trains: a small Llama, sequences shaped like the paper's mix, and plans of them.

Lengths and width are those of Llama-2-7B at 64k divided by 32, so attention's share of the work stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.ingest_inputs import samples
from longalign_core.batch_plan import BatchPlan, EpochOrder
from longalign_core.batching.cost import CostModel
from longalign_core.batching.report import PlanReport
from longalign_core.batching.strategies import Batching, order_epochs
from longalign_core.loss_scales import Normaliser
from longalign_core.token_store import TokenStore, TokenStoreWriter

SCALE = 32
CAPACITY = 65_536 // SCALE
VOCABULARY = 512
STRATEGIES = ("naive", "sorted", "longalign", "balanced")
PACKS_PER_STEP = {"naive": 96, "sorted": 96, "longalign": 8, "balanced": 8, "bfd": 8}
"""A step of packs holds about 96 sequences of this mix."""
TARGET_SHARE = 0.25
_NOISE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Size of a model.

    Attributes:
        hidden: Its width; heads are 32 wide.
        layers: Their number.
        vocabulary: Token ids.
        tied: Whether the output layer is the embedding.
    """

    hidden: int = 4096 // SCALE
    layers: int = 4
    vocabulary: int = VOCABULARY
    tied: bool = False


def mix_lengths(number: int) -> NDArray[np.int64]:
    """So many lengths that lie like the sample's, from its shortest to its longest: no draw changes their shape."""
    sample = np.sort(np.load(samples().parent / "packing" / "lengths_100k.npy"))
    places = ((np.arange(number) + 0.5) / number * len(sample)).astype(np.int64)
    return np.maximum(4, sample[places].astype(np.int64) // SCALE)


def write_tokens(folder: Path, lengths: NDArray[np.int64], *, vocabulary: int, target_share: float, seed: int) -> None:
    """Sequences of a language that can be learnt: a token follows from the last one, but for some noise.

    The last `target_share` of each is the answer that is trained; 0 trains nothing of any, 1 all but the first.
    """
    draw = np.random.default_rng(seed)
    follower = np.random.default_rng(0).permutation(vocabulary)
    with TokenStoreWriter(folder, vocabulary) as writer:
        for length in lengths.tolist():
            tokens = draw.integers(0, vocabulary, length)
            noise = draw.random(length) < _NOISE
            for place in range(1, length):
                if not noise[place]:
                    tokens[place] = follower[tokens[place - 1]]
            is_target = np.arange(length) >= max(1, round(length * (1 - target_share)))
            writer.append(tokens, is_target & (target_share > 0))


def write_padded(folder: Path, order: EpochOrder, source: TokenStore, *, vocabulary: int) -> EpochOrder:
    """The same packs, each filled up to the capacity as the reference fills it.

    The reference's batches are always `CAPACITY` tokens: padding stands at the end as one more segment, goes
    through every layer and counts in no loss. Here it is a sequence without a target token. The reference also
    computes its logits; our head leaves them out, which is in its favour.
    """
    used = np.bincount(order.slots, source.lengths[order.sequences]).astype(np.int64)
    fillers = CAPACITY - used
    with TokenStoreWriter(folder, vocabulary) as writer:
        for number in range(source.num_sequences):
            writer.append(*source.sequence(number))
        for length in fillers[fillers > 0].tolist():
            writer.append(np.zeros(length, dtype=np.int64), np.zeros(length, dtype=np.bool_))
    filled = np.flatnonzero(fillers > 0)
    sequences = np.concatenate([order.sequences, source.num_sequences + np.arange(len(filled))])
    slots = np.concatenate([order.slots, filled])
    stable = np.argsort(slots, kind="stable")  # a slot's own sequences first, then its padding
    return EpochOrder(sequences[stable], slots[stable])


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that was written, and what the product's cost model expects of it.

    Attributes:
        plan: Its folder.
        tokens: Folder of its token store.
        slot_costs: Array file of the FLOPs of every slot.
        cost: FLOPs of all slots.
        slowest: By number of ranks, FLOPs of the slowest rank of every micro-step, added up.
        steps: Optimizer steps.
        slots: That hold a sequence.
        real_tokens: Tokens of the sequences, padding left out.
    """

    plan: Path
    tokens: Path
    slot_costs: Path
    cost: float
    slowest: dict[str, float]
    steps: int
    slots: int
    real_tokens: int


def plan_strategy(
    folder: Path,
    tokens: Path,
    strategy: str,
    cost_model: CostModel,
    *,
    ranks: int,
    alpha: float = 1.0,
    normaliser: Normaliser = "step",
    epochs: int = 1,
    padded: bool = False,
) -> Planned:
    """Plan a token store by the product's strategy of that name.

    Args:
        folder: Where the plan goes.
        tokens: The token store.
        strategy: One of the product's.
        cost_model: What `balanced` compares packs by, and what waiting is foreseen with.
        ranks: That meet after every micro-step; `sorted` puts so many neighbours side by side.
        alpha: Loss weight N^-alpha of a target token.
        normaliser: What weights are divided by.
        epochs: Passes over the data.
        padded: Fill every pack up to the capacity; one epoch only.
    """
    store = TokenStore.open(tokens)
    packs_per_step = PACKS_PER_STEP[strategy]
    batching = Batching(
        strategy=strategy,
        capacity=CAPACITY,
        packs_per_step=packs_per_step,
        alike=ranks if strategy == "sorted" else packs_per_step,
        cost_model=cost_model,
        seed=0,
    )
    orders = list(order_epochs(store.lengths, batching, epochs))
    real_tokens = int(store.lengths.sum()) * epochs
    if padded:
        assert epochs == 1
        tokens = folder.with_name(folder.name + "-tokens")
        orders = [write_padded(tokens, orders[0], store, vocabulary=VOCABULARY)]
        store = TokenStore.open(tokens)
    shared = {
        "capacity": CAPACITY,
        "packs_per_step": packs_per_step,
        "alpha": alpha,
        "normaliser": normaliser,
        "lengths": store.lengths,
        "targets": store.targets,
    }
    report = PlanReport(cost_model=cost_model, **shared)
    for order in orders:
        report.add(order)
    figures = report.figures()
    plan = BatchPlan.write(folder, strategy=strategy, alike=batching.alike, seed=batching.seed, epochs=orders, **shared)
    costs = cost_model.costs(store.lengths)
    of_slots = [
        [sum(costs[placement.sequence] for placement in slot) for slot in plan.slots(step)]
        for step in range(plan.meta.num_steps)
    ]
    slot_costs = folder.with_name(f"{folder.name}-costs.npy")
    np.save(slot_costs, np.array(of_slots))
    return Planned(
        plan=folder,
        tokens=tokens,
        slot_costs=slot_costs,
        cost=figures.cost,
        slowest=figures.slowest,
        steps=plan.meta.num_steps,
        slots=figures.packs,
        real_tokens=real_tokens,
    )


def model_config(shape: Shape) -> dict[str, object]:
    """The values of its config.json that its costs follow from."""
    return {
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.hidden * 43 // 16,  # 11,008 ÷ 4,096
        "num_hidden_layers": shape.layers,
        "num_attention_heads": max(1, shape.hidden // 32),
        "num_key_value_heads": max(1, shape.hidden // 32),
        "max_position_embeddings": CAPACITY,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def write_model(folder: Path, shape: Shape) -> None:
    """A Llama with random weights in fp32, with a tokenizer of as many words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    values = {name: value for name, value in model_config(shape).items() if name != "model_type"}
    LlamaForCausalLM(LlamaConfig(**values)).save_pretrained(folder)
    words = {f"w{number}": number for number in range(shape.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="w0", eos_token="w1", unk_token="w2", pad_token="w3"
    ).save_pretrained(folder)

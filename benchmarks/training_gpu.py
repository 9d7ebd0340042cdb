"""On a GPU: model FLOPs utilisation, and the longest context that fits, with the chunked loss and the plain one.

`python -m benchmarks.training_gpu [--json FILE]` runs alone where only torch, transformers and numpy are
installed. One GPU, bf16, AdamW, gradient checkpointing, random weights of the shape of Llama-3.2-1B.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOSSES = ("chunked", "plain")
_PROBE = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSizes:
    """What is measured.

    Attributes:
        model: In words.
        hidden: Width.
        intermediate: Width of the feed-forward layers.
        layers: Their number.
        heads: Of queries.
        key_heads: Of keys and values.
        vocabulary: Token ids.
        pack_tokens: Tokens of the pack that is timed: one sequence of half of them, one of a quarter, and so on.
        turns: Of it.
        first_tokens: Shortest context that is tried.
        most_tokens: Longest.
    """

    model: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    pack_tokens: int
    turns: int
    first_tokens: int
    most_tokens: int


LLAMA_1B = GpuSizes(
    model="Llama-3.2-1B's shape, bf16",
    hidden=2048,
    intermediate=8192,
    layers=16,
    heads=32,
    key_heads=8,
    vocabulary=128_256,
    pack_tokens=65_536,
    turns=5,
    first_tokens=8_192,
    most_tokens=262_144,
)


def probe_gpu() -> dict[str, Any] | None:
    """Measure in a process of its own; None where there is no GPU.

    Raises:
        RuntimeError: There is one, and the measurement failed.
    """
    repository = Path(__file__).resolve().parent.parent
    if subprocess.run([sys.executable, "-c", _PROBE], capture_output=True).returncode:
        return None
    command = [sys.executable, "-m", "benchmarks.training_gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository)
    if done.returncode:
        raise RuntimeError(f"the measurement on the GPU failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(sizes: GpuSizes, device_name: str) -> dict[str, Any]:
    """Measure in this process. On the CPU, in fp32, it only shows that it runs.

    Args:
        sizes: What is measured.
        device_name: "cuda" or "cpu".
    """
    import torch

    from longalign_core.training.isolation import check_isolation
    from longalign_core.training.peak_flops import peak_flops

    device = torch.device(device_name)
    on_gpu = device.type == "cuda"
    model = _model(sizes, device)
    check_isolation(model, device)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    run = _step(model, optimizer, sizes.vocabulary, device)
    run([sizes.first_tokens], "chunked", update=True)  # from here on the optimizer's state takes its memory
    name = torch.cuda.get_device_name(device) if on_gpu else "cpu"
    peak = peak_flops(name, "bf16") if on_gpu else None
    pack = _halves(sizes.pack_tokens)
    work = _flops(model, sizes, pack)
    losses = {}
    for loss in LOSSES:
        longest, is_cap = _longest(lambda tokens, loss=loss: _fits(lambda: run([tokens], loss)), sizes)
        row: dict[str, Any] = {"longest_context": longest, "longest_is_cap": is_cap}
        row |= dict.fromkeys(("seconds", "mfu", "tflop_per_second", "tokens_per_second", "peak_memory_gb"))
        if _fits(lambda loss=loss: run(pack, loss)):
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(device)
            seconds = statistics.median(run(pack, loss, update=True) for _ in range(sizes.turns))
            row |= {
                "seconds": round(seconds, 4),
                "mfu": None if peak is None else round(work / seconds / peak, 4),
                "tflop_per_second": round(work / seconds / 1e12, 2),
                "tokens_per_second": round(sum(pack) / seconds, 1),
                "peak_memory_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2) if on_gpu else None,
            }
        losses[loss] = row
    return {
        "device": name,
        "model": sizes.model,
        "torch": torch.__version__,
        "pack": pack,
        "losses": losses,
    }


def _model(sizes: GpuSizes, device: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from longalign_core.training.attention import PACKED_ATTENTION, register_packed_attention
    from longalign_core.training.model import PackedLossModel

    register_packed_attention()
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.key_heads,
        max_position_embeddings=sizes.most_tokens,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PACKED_ATTENTION)
    model.activation_checkpointing_enable({"use_reentrant": False})
    return PackedLossModel(model)


def _step(model: Any, optimizer: Any, vocabulary: int, device: Any) -> Callable[..., float]:
    """A function that runs a pack of sequences forward and backward, and returns its seconds."""
    import torch

    def run(lengths: list[int], loss_name: str, *, update: bool = False) -> float:
        tokens = torch.randint(vocabulary, (sum(lengths),), device=device)
        positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        weights = torch.full((len(tokens),), 1 / len(tokens), device=device)
        _synchronize(device)
        begun = time.perf_counter()
        if loss_name == "chunked":
            loss, _ = model(tokens, positions, tokens.roll(-1), weights)
        else:
            logits = model.model.get_output_embeddings()(model.hidden(tokens, positions)).float()
            losses = torch.nn.functional.cross_entropy(logits, tokens.roll(-1), reduction="none")
            loss = (losses * weights).sum()
        loss.backward()
        if update:
            optimizer.step()
        optimizer.zero_grad()
        _synchronize(device)
        return time.perf_counter() - begun

    return run


def _synchronize(device: Any) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fits(attempt: Callable[[], float]) -> bool:
    import torch

    try:
        attempt()
    except torch.OutOfMemoryError:
        fits = False
    else:
        fits = True
    # Outside of the handler: its traceback would hold the tensors.
    gc.collect()
    with contextlib.suppress(AssertionError):  # torch without CUDA
        torch.cuda.empty_cache()
    return fits


def _longest(fits: Callable[[int], bool], sizes: GpuSizes) -> tuple[int, bool]:
    """Longest context that fits, to an eighth, and whether it is only the longest that was tried."""
    good, bad = 0, None
    tokens = sizes.first_tokens
    while tokens <= sizes.most_tokens and bad is None:
        if fits(tokens):
            good, tokens = tokens, 2 * tokens
        else:
            bad = tokens
    if bad is None:
        return good, True
    while bad - good > max(good, sizes.first_tokens) // 8:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good, False


def _halves(tokens: int) -> list[int]:
    lengths = []
    while tokens > 16:
        lengths.append(tokens // 2)
        tokens -= tokens // 2
    return [*lengths, tokens]


def _flops(model: Any, sizes: GpuSizes, lengths: list[int]) -> float:
    """Of forward and backward passes, causal attention counted by half, recomputation left out."""
    weights = sum(parameter.numel() for parameter in model.parameters())  # the embedding is the output layer's too
    attention = 6 * sizes.hidden * sizes.layers * sum(length**2 for length in lengths)
    return float(6 * weights * sum(lengths) + attention)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    figures = measure(LLAMA_1B, "cuda")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

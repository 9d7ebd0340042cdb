"""Peak memory of the output layer's loss, forward and backward: ours against the plain one.

`python -m benchmarks.training_loss chunked|plain TOKENS VOCABULARY HIDDEN` prints JSON. Every variant needs a
process of its own: resident memory peaks never fall.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring import peak_memory_mb

VARIANTS = ("chunked", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossProbe:
    """What one forward and backward pass took.

    Attributes:
        memory_mb: Growth of the largest resident memory, inputs and imports left out.
        cpu_seconds: Of all threads.
        loss: Its value, by which variants are checked.
        gradient_norm: Of hidden states and weight together.
    """

    memory_mb: float
    cpu_seconds: float
    loss: float
    gradient_norm: float


def probe_loss(variant: str, tokens: int, vocabulary: int, hidden: int) -> LossProbe:
    """Measure one variant in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.training_loss", variant, str(tokens), str(vocabulary), str(hidden)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent)
    if done.returncode:
        raise SystemExit(f"the {variant} loss failed:\n{done.stderr[-2000:]}")
    return LossProbe(**json.loads(done.stdout.splitlines()[-1]))


def measure(variant: str, tokens: int, vocabulary: int, hidden: int) -> LossProbe:
    """Measure in this process, a small pass first, which loads what a first pass loads."""
    import torch

    from longalign_core.training.loss import weighted_cross_entropy

    def one_pass(num_tokens: int) -> tuple[float, float]:
        torch.manual_seed(0)
        states = torch.randn(num_tokens, hidden, requires_grad=True)
        weight = torch.randn(vocabulary, hidden, requires_grad=True)
        labels = torch.randint(vocabulary, (num_tokens,))
        weights = torch.rand(num_tokens) / num_tokens
        before.append(peak_memory_mb())
        if variant == "chunked":
            loss, _ = weighted_cross_entropy(states, weight, None, labels, weights)
        else:
            losses = torch.nn.functional.cross_entropy(states @ weight.T, labels, reduction="none")
            loss = (losses * weights).sum()
        loss.backward()
        assert states.grad is not None and weight.grad is not None
        return float(loss.detach()), float((states.grad.norm() ** 2 + weight.grad.norm() ** 2) ** 0.5)

    before: list[float] = []
    one_pass(8)
    begun = time.process_time()
    loss, norm = one_pass(tokens)
    seconds = time.process_time() - begun
    return LossProbe(memory_mb=peak_memory_mb() - before[-1], cpu_seconds=seconds, loss=loss, gradient_norm=norm)


if __name__ == "__main__":
    name, *sizes = sys.argv[1:]
    print(json.dumps(asdict(measure(name, *(int(size) for size in sizes)))))

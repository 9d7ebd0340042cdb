"""Where the activations that wait for the backward pass are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def activation_storage(offload: bool) -> AbstractContextManager[object]:
    """A forward pass in the block keeps its saved tensors on the GPU, or in CPU memory until they are needed.

    Inside a checkpointed layer nothing is saved but its inputs, so that under gradient checkpointing
    one hidden state a layer crosses the bus, there and back.
    """
    if not offload:
        return nullcontext()
    storage: AbstractContextManager[object] = torch.autograd.graph.save_on_cpu(pin_memory=torch.cuda.is_available())
    return storage

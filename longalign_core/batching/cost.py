"""What a sequence costs to train on: linear in its tokens, quadratic in its attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from longalign_core.batching.cost_profile import MeasuredPack, fit_seconds
from longalign_core.batching.model_shape import read_shape
from longalign_core.errors import InputError

# A backward pass costs twice the forward pass.
_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CostModel:
    """Costs of one forward and backward pass, without recomputation. The default is that of a
    round 7B model: six FLOPs for each of 7e9 weights, and the attention of Llama-2-7B.

    Attributes:
        linear: Cost of a token, in everything but attention between tokens.
        quadratic: Cost of a squared token of a sequence: causal attention of the layers that see all.
        windowed: Of layers that see a sliding window: its tokens, and the cost of a squared token up
            to the window. Beyond it a token costs what the window's tokens do.
        pack: Cost of a pack whatever is in it, as measured. Not in `costs`, which are a sequence's.
        unit: What costs are counted in.
        misfit: How far measured packs lie from these costs, root mean square as a share of their
            mean seconds; 0 when nothing was measured.
    """

    linear: float = 42e9
    quadratic: float = 786_432.0
    windowed: tuple[tuple[int, float], ...] = ()
    pack: float = 0.0
    unit: Literal["flops", "seconds"] = "flops"
    misfit: float = 0.0

    @classmethod
    def from_model_config(cls, config: Mapping[str, Any]) -> CostModel:
        """The costs of a transformer language model, mixtures of experts and sliding windows included.

        Norms, activations and the softmax are left out, as their FLOPs are few.

        Args:
            config: The values of its `config.json`.

        Raises:
            InputError: A size is missing or is no positive number, or a kind of layer is unknown.
        """
        shape = read_shape(config)
        # Two FLOPs a weight and token. In attention two products of n x n x width FLOPs twice over,
        # of which a causal mask leaves half.
        quadratic = 0.0
        windowed: dict[int, float] = {}
        for width, window in shape.layers:
            cost = _PASSES * 2.0 * width
            if window is None:
                quadratic += cost
            else:
                windowed[window] = windowed.get(window, 0.0) + cost
        return cls(linear=_PASSES * 2.0 * shape.weights, quadratic=quadratic, windowed=tuple(sorted(windowed.items())))

    def calibrated(self, packs: Sequence[MeasuredPack]) -> CostModel:
        """These costs in seconds, as measured packs show: what tokens cost, and what attention does.

        What a pack costs whatever is in it is told apart only where the fullest measured pack has
        twice the tokens of the emptiest; among full packs it cannot be told from what tokens cost.

        Raises:
            InputError: The packs are too few or too much alike.
        """
        lengths = [np.array(pack.lengths, dtype=np.float64) for pack in packs]
        tokens = np.array([one.sum() for one in lengths])
        attention = np.array([self._attention_costs(one).sum() for one in lengths])
        features = np.stack([self.linear * tokens, attention], axis=1)
        if tokens.max() >= 2 * tokens.min():
            features = np.concatenate([features, np.ones((len(packs), 1))], axis=1)
        (linear, attention_scale, *pack), misfit = fit_seconds(features, np.array([pack.seconds for pack in packs]))
        if linear == 0.0 and attention_scale == 0.0:
            raise InputError("the cost profile's seconds do not grow with the packs' tokens; measure it again")
        return replace(
            self,
            linear=float(linear * self.linear),
            quadratic=float(attention_scale * self.quadratic),
            windowed=tuple((window, float(attention_scale * cost)) for window, cost in self.windowed),
            pack=float(pack[0]) if pack else 0.0,
            unit="seconds",
            misfit=misfit,
        )

    def costs(self, lengths: NDArray[np.integer]) -> NDArray[np.float64]:
        """Cost per sequence, in `unit`, shape (S,)."""
        tokens = np.asarray(lengths, dtype=np.float64)
        costs = self._attention_costs(tokens)
        tokens = tokens * self.linear
        costs += tokens
        return costs

    def _attention_costs(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        costs = tokens * tokens
        costs *= self.quadratic
        for window, cost in self.windowed:
            # Of a query's tokens those beyond the window fall away.
            costs += cost * (tokens**2 - np.maximum(tokens - window, 0.0) ** 2)
        return costs

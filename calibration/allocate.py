"""One width per layer under a byte budget: a multiple-choice knapsack, solved exactly as an integer program (HiGHS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from pipeline.errors import InputError, VoxPressError


@dataclass(frozen=True)
class LayerChoices:
    """What each width would cost one layer.

    penalty: by width, how much the layer's rounding hurts (mean Hessian trace times ||Q_b(W) - W||^2).
    bytes: by width, codes, palette, scale and bias as the artifact stores them.
    """

    name: str
    penalty: Mapping[int, float]
    bytes: Mapping[int, int]


def allocate_bits(layers: Sequence[LayerChoices], budget_bytes: int) -> dict[str, int]:
    """The width of every layer that minimises the summed penalty with at most `budget_bytes` bytes in all.

    min sum_{l,b} penalty[l,b] x[l,b]  s.t.  sum_b x[l,b] = 1,  sum_{l,b} bytes[l,b] x[l,b] <= budget,  x in {0, 1}.

    Raises InputError if the narrowest widths already exceed the budget.
    """
    choices = [(index, width) for index, layer in enumerate(layers) for width in sorted(layer.bytes)]
    least = sum(min(layer.bytes.values()) for layer in layers)
    if least > budget_bytes:
        raise InputError(
            "byte budget", expected=f"at least {least} bytes, all layers at their narrowest", found=str(budget_bytes)
        )
    penalty = np.array([layers[index].penalty[width] for index, width in choices])
    size = np.array([layers[index].bytes[width] for index, width in choices], np.float64)
    rows = [index for index, _ in choices]
    one_each = csr_array((np.ones(len(choices)), (rows, range(len(choices)))), shape=(len(layers), len(choices)))
    solution = milp(
        # HiGHS works with absolute tolerances: penalties are brought to one scale, and so are bytes.
        penalty / max(float(penalty.max()), np.finfo(np.float64).tiny),
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(size[None, :] / budget_bytes, -np.inf, 1.0),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if solution.x is None:
        raise VoxPressError(f"bit allocation: the solver gave no plan: {solution.message}")
    taken = solution.x > 0.5
    plan = {layers[index].name: width for (index, width), take in zip(choices, taken, strict=True) if take}
    if len(plan) != len(layers) or float(size[taken].sum()) > budget_bytes:
        raise VoxPressError("bit allocation: the solver's plan does not fit its constraints")
    return plan

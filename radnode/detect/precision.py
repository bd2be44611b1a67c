"""Whether a network of images computes in bfloat16: where it is asked to, or where that was measured to pay.

The choice is made once, when a detector is loaded, and stands in its reports: a score differs in the third digit or so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from radnode.settings import Precision

PAYS = 0.8  # of the time of float32, at most
FARTHEST = 0.05  # how much a logit may differ
_ROUNDS = 3
_SEED = 7

Run = Callable[["torch.Tensor"], Any]  # float32 (N, channels, size, size) to image logits (N,)


def choose(run: Run, shape: tuple[int, ...], device: str, wanted: Precision) -> bool:
    """Return whether to compute in bfloat16; `shape` is that of a few images.

    With "auto" it is measured on noise, the same at every start: the best of three rounds has to be quicker by a fifth,
    and no logit may be another by more than a twentieth. A network that raises computes in float32.
    """
    import torch  # noqa: PLC0415 (it is there: the network is)

    if wanted != "auto":
        return wanted == "bfloat16"
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))
    try:
        (plain, logits), (quick, others) = (_timed(run, noise, device, is_half=is_half) for is_half in (False, True))
    except Exception:  # noqa: BLE001 (foreign code; that it cannot do this is no fault)
        return False
    return quick <= PAYS * plain and float((logits - others).abs().max()) <= FARTHEST


def _timed(run: Run, noise: torch.Tensor, device: str, *, is_half: bool) -> tuple[float, torch.Tensor]:
    """Return the seconds of the best round, and the logits."""
    import torch  # noqa: PLC0415 (as above)

    best, logits = float("inf"), torch.zeros(0)
    for _ in range(_ROUNDS + 1):  # the first one warms up
        began = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_half):
            logits = run(noise.to(device)).float().cpu()
        best = min(best, time.perf_counter() - began)
    return best, logits

"""From what a network returns to image logits and heat logits, by the form that its manifest states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from radnode.detect.manifest import OutputSpec

MAX_CELLS = 64  # rows and columns of a heat map; a finer one keeps the highest value of each cell
_EDGE = 1e-6  # how near a probability may come to 0 and 1, so that its logit is a number


def read_output(said: Any, spec: OutputSpec) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return float32 logits (N,) and heat logits (N, rows, columns), None for classes.

    Where a network returns several things, classes or map are the first.

    Raises:
        ValueError, LookupError, TypeError, RuntimeError: it returned something else than its form.
    """
    if spec.form == "score_and_map":
        logits, heats = said
        return logits.float(), heats.float()
    values = said[0] if isinstance(said, tuple | list) else said
    dimensions = 2 if spec.form == "classes" else 4
    if values.ndim != dimensions or values.shape[1] <= spec.channel:
        raise ValueError("another shape than the form says")
    chosen = _logits(values.float(), spec)
    if spec.form == "classes":
        return chosen, None
    import torch  # noqa: PLC0415 (it is there: what is read is a tensor)

    if max(chosen.shape[1:]) > MAX_CELLS:
        cells = [min(length, MAX_CELLS) for length in chosen.shape[1:]]
        chosen = torch.nn.functional.adaptive_max_pool2d(chosen[:, None], cells)[:, 0]
    return chosen.flatten(1).amax(dim=1), chosen


def _logits(values: torch.Tensor, spec: OutputSpec) -> torch.Tensor:
    """Return the logits of one channel, whose axis is gone: log(p / (1 - p)) of its probability p."""
    chosen = values[:, spec.channel]
    if spec.activation == "sigmoid":
        return chosen
    if spec.activation == "none":
        return chosen.clamp(_EDGE, 1.0 - _EDGE).logit()
    others = [channel for channel in range(values.shape[1]) if channel != spec.channel]
    return chosen - values[:, others].logsumexp(dim=1)

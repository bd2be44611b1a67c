"""How many images go through a network together, and what becomes of that when the memory of a device runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Parts:
    """Runs a network over parts of a batch, of at most `together` images each.

    Memory that runs out halves that, for good: another batch would meet the same. One image alone that finds no memory
    has failed.
    """

    def __init__(self, together: int) -> None:
        self.together = together

    def run(self, network: Callable[[torch.Tensor], T], batch: torch.Tensor) -> list[T]:
        """Return what a network says of each part, in their order.

        Raises:
            torch.OutOfMemoryError: one image alone is too many.
        """
        import torch  # noqa: PLC0415 (it is there: the batch is a tensor)

        while True:
            try:
                return [network(part) for part in batch.split(self.together)]
            except torch.OutOfMemoryError:
                if self.together == 1:
                    raise
                self.together //= 2
            torch.cuda.empty_cache()

"""Secondary objects on the worker's side: for which images a view is decoded, and a failure that costs no report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydicom.dataset import Dataset

from radnode.model import VIEW_SIDE, Analysis, View
from radnode.results import Report, Secondary
from radnode.rules import Decision

_SHOWN = frozenset({"sc", "gsps"})  # the kinds that need to know how the image is shown

# The headers of the analysed images, the analysis, when the last one came (epoch seconds), the report, the kinds, and
# the images that are shown by their number among the analysed ones, from 1.
ComposeSecondary = Callable[
    [Sequence[Dataset], Analysis, float, Report, Sequence[str], Mapping[int, View]], Sequence[Secondary]
]


class Illustrator:
    """Makes the secondary objects that the rules ask for; without `compose` it makes none."""

    def __init__(self, compose: ComposeSecondary | None, log: Any) -> None:
        self._compose = compose
        self._log = log

    def view_side(self, decision: Decision) -> int:
        """Return how long the longer side of a view is to be; 0 where none is needed."""
        return VIEW_SIDE if self._compose is not None and _SHOWN & set(decision.secondary or ()) else 0

    def objects(
        self,
        headers: Sequence[Dataset],
        analysis: Analysis,
        received: float,
        report: Report,
        decision: Decision,
        views: Mapping[int, View],
    ) -> Sequence[Secondary]:
        """Return the secondary objects of one analysis; none where making them fails, which the log says."""
        if self._compose is None or not decision.secondary:
            return ()
        try:
            return self._compose(headers, analysis, received, report, decision.secondary, views)
        except Exception as error:  # noqa: BLE001 (whatever a picture meets, its report must go out)
            self._log.error("secondary_failed", model=analysis.model.name, error=type(error).__name__)
            return ()

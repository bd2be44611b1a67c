"""When a series is ready: by quiet, by its announced number, by force; whatever the clock and the announcements say."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from radnode.readiness import Sight, announcement, look, ready_at
from radnode.settings import CompletionSettings

SETTINGS = CompletionSettings(quiet_seconds=20.0, force_seconds=600.0)


def test_quiet_counts_from_the_last_image_and_force_from_the_first() -> None:
    assert ready_at(Sight(7, first=1000.0, last=1030.0), None, SETTINGS) == 1050.0
    assert ready_at(Sight(7, first=1000.0, last=1590.0), None, SETTINGS) == 1600.0


@pytest.mark.parametrize(("kept", "ready"), [(299, 1050.0), (300, 1030.0), (301, 1050.0)])
def test_announced_number_counts_only_where_it_is_just_reached(kept: int, ready: float) -> None:
    assert ready_at(Sight(kept, first=1000.0, last=1030.0), 300, SETTINGS) == ready


def test_configured_number_overrides_the_announced_one() -> None:
    settings = SETTINGS.model_copy(update={"expected_instances": 3})
    assert ready_at(Sight(3, first=1000.0, last=1030.0), 300, settings) == 1030.0
    assert ready_at(Sight(300, first=1000.0, last=1030.0), 300, settings) == 1050.0


def test_look_sees_growth_by_numbers_and_nothing_in_the_future() -> None:
    before = Sight(5, first=1000.0, last=1010.0)
    assert look(before, kept=5, oldest=1000.0, newest=1010.0, now=1015.0) == before
    assert look(before, kept=6, oldest=1000.0, newest=1014.0, now=1015.0) == Sight(6, 1000.0, 1014.0)
    assert look(before, kept=5, oldest=999.0, newest=1010.0, now=1015.0) == Sight(5, 999.0, 1010.0)
    assert look(before, kept=5, oldest=1000.0, newest=1010.0, now=400.0) == Sight(5, 400.0, 400.0)  # it went back
    assert look(Sight(5, 400.0, 400.0), kept=5, oldest=1000.0, newest=1010.0, now=410.0) == Sight(5, 400.0, 400.0)


@pytest.mark.parametrize(
    ("series", "announced"),
    [("300", 300), (" 12 ", 12), ("", None), ("1", None), ("0", None), ("-3", None), ("9" * 400, None), ("٣٠٠", None)],
)
def test_what_a_header_announces(series: str, announced: int | None) -> None:
    assert announcement(series) == announced


def test_force_is_not_before_quiet() -> None:
    with pytest.raises(ValidationError, match="force_seconds"):
        CompletionSettings(quiet_seconds=30.0, force_seconds=20.0)

"""Rows 3 to 8 of docs/life-of-an-image.md: kill -9 of everything while an image arrives leaves what its row says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydicom.dataset import Dataset
from support import films
from support.steps import ARRIVING, Site, site

from radnode.failpoints import PLACES


@pytest.fixture(scope="module")
def arriving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Where images arrive and nobody analyses them."""
    yield from site(tmp_path_factory.mktemp("arriving"), "intake")


def large() -> Dataset:
    """A film whose object goes to the disk in more than one write."""
    film = films.fresh(films.NORMAL)
    pixels = film.pixel_array.repeat(2, axis=0).repeat(2, axis=1)
    film.Rows, film.Columns = pixels.shape
    film.PixelData = np.ascontiguousarray(pixels).tobytes()
    return film


@pytest.mark.parametrize("place", ARRIVING)
def test_kill_while_an_image_arrives_leaves_what_its_row_says(arriving: Site, place: str) -> None:
    instances, orphans, is_promised = ARRIVING[place]
    half = place == "object-begun"
    crash = arriving.crash(place, large() if half else films.fresh(films.NORMAL))
    assert crash.new("instances") == crash.new("analyse ready") == instances
    assert crash.new("study_keys") == (int(PLACES[place]) >= 5)
    assert crash.left["orphans"] == orphans
    assert (crash.left["half-written bytes"] > 0) == half
    assert crash.promised == is_promised
    assert arriving.ledgers[-1].sent == (1 if is_promised else 2)
    assert crash.repaired["stretches"] == (1 if orphans or half else 0)
    assert (arriving.node.orphans(), arriving.node.leftovers()) == (set(), 0)


def test_kill_while_a_duplicate_is_compared_leaves_one_object_too_many(arriving: Site) -> None:
    image = films.fresh(films.NORMAL)
    arriving.push(image).join()
    first = arriving.ledgers.pop()
    crash = arriving.crash("duplicate-compared", image)
    assert not crash.promised
    assert crash.new("instances") == crash.new("analyse ready") == 0
    assert crash.left["orphans"] == crash.repaired["stretches"] == 1
    assert first.promised == arriving.ledgers[-1].promised
    assert (arriving.node.orphans(), arriving.node.leftovers()) == (set(), 0)


def test_every_image_that_arrived_between_the_kills_has_one_report_in_the_end(arriving: Site) -> None:
    assert arriving.node.stop() == 0
    arriving.roles = "all"
    arriving.start()
    arriving.settle()

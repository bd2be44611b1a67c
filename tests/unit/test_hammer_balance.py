"""The balance of `scripts/hammer` can fail: a ledger and a PACS that break each promise in turn."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support import analyses, films
from support.secondary import secondary

from radnode.report.sr import encode_report

SUCCESS = "Success"


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    folder = str(Path(__file__).parents[2] / "scripts")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


@dataclass
class Story:
    """Six acknowledged films with a report each, the first two with a result and its picture, and one request for a
    commitment; every other one is a DX film, which is forwarded."""

    ledger: object
    images: list[object]
    reports: list[Dataset]
    pictures: list[Dataset]
    forwarded: list[bytes]

    def verdict(self) -> tuple[bool, set[str]]:
        """Whether the balance is even, and which lines of it are not empty."""
        from hammering import balance  # noqa: PLC0415

        stored = [*map(encode_report, self.reports), *map(films.file_bytes, self.pictures), *self.forwarded]
        drawn = balance.draw_up(self.ledger, stored)
        list(balance.table(drawn, self.ledger))  # every line of it can be printed
        return drawn.is_even, {name for name, found in drawn.faults() if found}


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    from hammering.images import FILMS, Image, digest  # noqa: PLC0415
    from hammering.ledger import Ledger  # noqa: PLC0415

    ledger, images, reports, pictures, forwarded = Ledger(tmp_path / "ledger.jsonl"), [], [], [], []
    for number in range(6):
        dataset = films.fresh(FILMS[number % 2])
        content = films.file_bytes(dataset)
        uids = str(dataset.SOPInstanceUID), str(dataset.SOPClassUID)
        images.append(Image(tmp_path / uids[0], *uids, str(dataset.Modality), digest(content)))
        ledger.record(images[-1], "CT1", SUCCESS)
        analysis = analyses.NO_FINDING if number < 2 else analyses.NOT_ATTEMPTED
        reports.append(analyses.report(films.received(dataset), analysis))
        pictures += secondary(dataset, analysis, ["sc"]).values()
        forwarded += [content] if images[-1].is_forwarded else []
    asked = frozenset(image.uid for image in images)
    ledger.record_request("1.2.3", asked)
    ledger.record_commitment("1.2.3", asked, frozenset())
    yield Story(ledger, images, reports, pictures, forwarded)
    ledger.close()


def test_ledger_and_pacs_that_agree_are_even(story: Story) -> None:
    assert story.verdict() == (True, set())


def test_report_that_another_names_as_its_predecessor_is_no_second_one(story: Story) -> None:
    first = story.reports[0]
    source = _source(story, 0)
    story.reports.append(analyses.report(source, analyses.NOT_ATTEMPTED, predecessors=[first]))
    assert story.verdict() == (True, set())


def _source(story: Story, number: int) -> Dataset:
    """A header under the UIDs that a report of the story speaks of."""
    report = story.reports[number]
    header = films.received(films.fresh(films.OPACITY))
    header.StudyInstanceUID = report.StudyInstanceUID
    header.SOPInstanceUID = story.images[number].uid
    return header


def _forgets_a_report(story: Story) -> None:
    story.reports.pop()


def _reports_again_under_another_uid(story: Story) -> None:
    twin = analyses.report(_source(story, 0))
    twin.SOPInstanceUID = generate_uid(prefix=None)
    story.reports.append(twin)


def _keeps_twins(story: Story) -> None:
    story.reports.append(story.reports[0])


def _reports_what_nobody_sent(story: Story) -> None:
    unknown = analyses.report(films.received(films.fresh(films.NORMAL)), analyses.NOT_ATTEMPTED)
    story.reports.append(unknown)


def _forgets_a_picture(story: Story) -> None:
    story.pictures.pop()


def _pictures_again_under_another_uid(story: Story) -> None:
    twin = copy.deepcopy(story.pictures[0])
    twin.SOPInstanceUID = generate_uid(prefix=None)
    story.pictures.append(twin)


def _pictures_what_has_no_report(story: Story) -> None:
    story.pictures.append(secondary(films.fresh(films.NORMAL), kinds=["sc"])["sc1"])


def _pictures_what_has_no_result(story: Story) -> None:
    story.reports[0] = analyses.report(_source(story, 0), analyses.NOT_ATTEMPTED)


def _fails_at_an_analysis(story: Story) -> None:
    story.reports[5] = analyses.report(_source(story, 5), analyses.FAILED)


def _forwards_nothing(story: Story) -> None:
    story.forwarded.clear()


def _changes_one_pixel(story: Story) -> None:
    content = bytearray(story.forwarded[0])
    content[-1] ^= 1
    story.forwarded[0] = bytes(content)


def _denies_what_it_acknowledged(story: Story) -> None:
    denied = frozenset([story.images[0].uid])
    story.ledger.record_request("1.2.4", denied)
    story.ledger.record_commitment("1.2.4", frozenset(), denied)


def _never_answers(story: Story) -> None:
    story.ledger.record_request("1.2.4", frozenset([story.images[0].uid]))


def _acknowledges_and_drops(story: Story) -> None:
    from hammering.images import Image  # noqa: PLC0415

    uid = generate_uid(prefix=None)
    story.ledger.record(Image(Path("dropped"), uid, story.images[0].sop_class, "CR", ""), "CT1", "Warning: Coercion")


BROKEN: dict[Callable[[Story], None], set[str]] = {
    _forgets_a_report: {"lost"},
    _acknowledges_and_drops: {"lost"},
    _reports_again_under_another_uid: {"reported twice", "without its picture"},
    _keeps_twins: {"reported twice"},
    _reports_what_nobody_sent: {"nobody's"},
    _fails_at_an_analysis: {"analysis failed"},
    _forgets_a_picture: {"without its picture"},
    _pictures_again_under_another_uid: {"pictured twice"},
    _pictures_what_has_no_report: {"picture of no report"},
    _pictures_what_has_no_result: {"picture of no report"},
    _forwards_nothing: {"not forwarded"},
    _changes_one_pixel: {"forwarded altered"},
    _denies_what_it_acknowledged: {"commitment refused", "commitment unanswered"},
    _never_answers: {"commitment unanswered"},
}


@pytest.mark.parametrize("breach", BROKEN, ids=lambda breach: breach.__name__.strip("_"))
def test_each_broken_promise_is_on_a_line_of_its_own(story: Story, breach: Callable[[Story], None]) -> None:
    breach(story)
    assert story.verdict() == (False, BROKEN[breach])


def test_image_that_was_refused_owes_nothing(story: Story) -> None:
    from hammering.images import Image  # noqa: PLC0415

    uid = generate_uid(prefix=None)
    story.ledger.record(Image(Path("refused"), uid, story.images[0].sop_class, "DX", ""), "CT1", "Refused")
    assert story.verdict() == (True, set())


def test_series_are_of_one_modality_and_their_digests_are_those_of_their_files(tmp_path: Path) -> None:
    from hammering.images import digest, series  # noqa: PLC0415

    chance = random.Random(3)  # noqa: S311 (not a secret)
    modalities = set()
    for _ in range(8):
        for image in series(tmp_path, chance, 3):
            modalities.add(image.modality)
            assert pydicom.dcmread(image.path).SOPInstanceUID == image.uid
            assert digest(image.path.read_bytes()) == image.digest
    assert modalities == {"CR", "DX", "CT"}

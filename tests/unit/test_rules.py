"""Rules: every rule that fits counts, a missing element is empty, nothing matches by accident, and each says why."""

from __future__ import annotations

import pytest
from support import films

from radnode.errors import ConfigError, MalformedDataSet
from radnode.model import Priority
from radnode.rules import Decision, Miss, Rules
from radnode.settings import RuleSettings


def rule(match: dict[str, object], *detect: str, **asked: object) -> RuleSettings:
    return RuleSettings(match=match, detect=detect, **asked)


def fits(match: dict[str, object], **elements: str) -> bool:
    return Rules([rule(match, "model")]).decide(elements).detect == ("model",)


@pytest.mark.parametrize(
    ("match", "elements", "expected"),
    [
        ({}, {}, True),
        ({"Modality": "CR"}, {"Modality": "CR"}, True),
        ({"Modality": "CR"}, {"Modality": "CRX"}, False),
        ({"Modality": "CR"}, {}, False),
        ({"Modality": ["CR", "DX"]}, {"Modality": "DX"}, True),
        ({"Modality": ["CR", "DX"]}, {"Modality": "CRDX"}, False),
        ({"Modality": ""}, {}, True),
        ({"Modality": "C."}, {"Modality": "CR"}, False),
        ({"StudyDescription": "re:.*THORAX.*"}, {"StudyDescription": "XR THORAX\nPA"}, True),
        ({"StudyDescription": "re:THORAX"}, {"StudyDescription": "XR THORAX"}, False),
        ({"StudyDescription": ["re:(?i).*thorax", "re:(?i)chest.*"]}, {"StudyDescription": "Chest PA"}, True),
        ({"StudyDescription": "re:A|B"}, {"StudyDescription": "AX"}, False),
        ({"CallingAE": "ROOM3"}, {"CallingAE": "ROOM3"}, True),
        ({"Modality": "CR", "CallingAE": "ROOM3"}, {"Modality": "CR", "CallingAE": "ROOM4"}, False),
        ({"Modality": []}, {"Modality": "CR"}, False),
    ],
)
def test_value_fits(match: dict[str, object], elements: dict[str, str], expected: bool) -> None:
    assert fits(match, **elements) is expected


def test_every_rule_that_fits_counts_in_the_order_of_the_file_without_repeats() -> None:
    rules = Rules(
        [
            rule({}, "b", "a", deliver=("pacs",)),
            rule({"Modality": "MR"}, "never", deliver=("never",), forward=("never",), priority="stat"),
            rule({"Modality": "CR"}, "a", "c", deliver=("archive", "pacs"), forward=("pacs",), priority="high"),
            rule({"Modality": "CR"}, forward=("archive", "pacs")),
        ]
    )
    decision = Decision(("b", "a", "c"), ("pacs", "archive"), ("pacs", "archive"), Priority.HIGH, ())
    assert rules.decide({"Modality": "CR"}) == decision
    assert rules.decide({"Modality": "MR"}).priority is Priority.STAT
    assert rules.decide({"Modality": "XA"}).priority is Priority.ROUTINE
    assert Rules([]).decide({}) == Decision(secondary=())


def test_secondary_objects_are_the_default_unless_a_rule_that_fits_says_which() -> None:
    rules = Rules(
        [
            rule({}, "model"),
            rule({"Modality": "CT"}, secondary=("sc", "gsps")),
            rule({"Modality": ["CT", "MR"]}, secondary=("kos", "sc")),
            rule({"Modality": "XA"}, secondary=()),
        ],
        ("sc",),
    )
    assert rules.decide({"Modality": "CR"}).secondary == ("sc",)
    assert rules.decide({"Modality": "CT"}).secondary == ("sc", "gsps", "kos")
    assert rules.decide({"Modality": "MR"}).secondary == ("kos", "sc")
    assert rules.decide({"Modality": "XA"}).secondary == ()
    assert (rules.decide({"Modality": "XA"}) | rules.decide({"Modality": "MR"})).secondary == ("kos", "sc")


def test_attributes_are_those_of_all_rules() -> None:
    rules = Rules([rule({"Modality": "CR"}), rule({"CallingAE": "X", "BodyPartExamined": "CHEST"})])
    assert set(rules.attributes.tags.values()) == {"Modality", "BodyPartExamined"}


def test_each_rule_says_why_it_does_not_fit() -> None:
    rules = Rules([rule({}), rule({"Modality": ["CR", "DX"], "CallingAE": "re:CT.*", "StudyDescription": ""})])
    first, second = rules.verdicts({"Modality": "MR", "CallingAE": "MR1"})
    assert (first.number, first.misses) == (1, ())
    assert (second.number, second.misses) == (
        2,
        (Miss("Modality", "MR", ("CR", "DX")), Miss("CallingAE", "MR1", ("re:CT.*",))),
    )


def test_elements_are_read_from_a_whole_object() -> None:
    rules = Rules([rule({"Modality": "DX", "StudyDescription": "", "CallingAE": "DX1", "ProtocolName": ""})])
    part10 = films.OPACITY.read_bytes()
    found = rules.elements(part10, "DX1")
    assert found == {
        "Modality": "DX",
        "StudyDescription": "Chest AP",
        "ProtocolName": "",
        "CallingAE": "DX1",
    }
    with pytest.raises(MalformedDataSet):
        rules.elements(part10[:-100], "DX1")


@pytest.mark.parametrize(
    ("match", "sentence"),
    [
        ({"Modalty": "CR"}, "Rule 2 cannot match 'Modalty': it is not the keyword of a Data Element."),
        ({"modality": "CR"}, "Rule 2 cannot match 'modality': it is not the keyword of a Data Element."),
        ({"": "x"}, "Rule 2 cannot match '': it is not the keyword of a Data Element."),
        ({"PixelData": "x"}, "Rule 2 cannot match 'PixelData': an element of VR OB or OW has no value to compare."),
        ({"Modality": "re:("}, "The regular expression for Modality in rule 2 is not one (missing ), "),
        ({"Modality": "re:(a*)*"}, "The regular expression for Modality in rule 2 repeats a group, "),
    ],
)
def test_rule_that_cannot_mean_anything_is_config_error(match: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Rules([rule({}), rule(match)])
    assert str(raised.value).startswith(sentence)

"""docs/hipaa.md and docs/threat-model.md name tests that are there, and leave no row without an answer."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("hipaa.md", "threat-model.md")}
TESTS = {
    (path.stem, name)
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}
REFERENCES = sorted({reference for text in PAGES.values() for reference in re.findall(r"`(\w+)::(\w+)`", text)})


def test_every_test_that_is_named_is_there() -> None:
    assert len(REFERENCES) > 50
    assert [reference for reference in REFERENCES if reference not in TESTS] == []


def rows(name: str) -> list[list[str]]:
    lines = [line for line in PAGES[name].splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_control_has_a_test_or_is_the_hospitals() -> None:
    controls = [row for row in rows("hipaa.md") if row[0] != "control"]
    assert len(controls) > 30
    assert [row for row in controls if not ("::" in row[2] or "the hospital's" in row[1])] == []


def test_controls_that_the_software_is_to_carry_are_all_there() -> None:
    text = PAGES["hipaa.md"]
    for paragraph in ("164.312", "164.308", "164.316", "164.404", "164.408", "164.528", "164.310"):
        assert paragraph in text


def test_every_threat_has_a_kind_a_boundary_and_a_test() -> None:
    threats = [row for row in rows("threat-model.md") if len(row) == 5 and row[0] in "STRIDE" and row[0]]
    assert {row[0] for row in threats} == set("STRIDE")
    assert all(set(row[2].replace(" ", "").split(",")) <= set("123456") for row in threats)
    assert [row for row in threats if "::" not in row[4]] == []

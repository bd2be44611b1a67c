"""`radnode rules test`: which rule matches a film and why, why another does not, and what no detector is."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from support import films

from radnode.cli import cli
from radnode.errors import ConfigError


def test_rules_test_says_which_rule_matches_and_why_and_why_another_does_not(tmp_path: Path) -> None:
    config = tmp_path / "radnode.toml"
    config.write_text(
        '[[destinations]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
        '[[rules]]\nmatch = { Modality = "DX" }\nforward = ["pacs"]\npriority = "stat"\n'
        '[[rules]]\nmatch = { Modality = ["CT", "MR"], CallingAE = "CT1" }\ndeliver = ["pacs"]\n'
    )
    found = CliRunner().invoke(cli, ["rules", "test", str(films.OPACITY), "-c", str(config)])
    assert found.output.splitlines() == [
        "rule 1: matches, asks for forward pacs; priority stat",
        '    Modality is "DX", and the rule has "DX"',
        "rule 2: no, asks for deliver pacs",
        '    Modality is "DX", and the rule wants "CT" or "MR"',
        '    CallingAE is "", and the rule wants "CT1" (name the sender with --calling-ae)',
        "decision: detect -; deliver -; forward pacs; priority stat; secondary sc",
    ]
    as_json = ["rules", "test", str(films.OPACITY), "--calling-ae", "CT1", "--json", "-c", str(config)]
    document = json.loads(CliRunner().invoke(cli, as_json).output)
    decision = {"detect": [], "deliver": [], "forward": ["pacs"], "priority": "stat", "secondary": ["sc"]}
    assert document["decision"] == decision
    assert [rule["matched"] for rule in document["rules"]] == [True, False]
    assert document["rules"][0]["hits"] == [{"keyword": "Modality", "value": "DX", "choice": "DX"}]
    assert document["rules"][1]["hits"] == [{"keyword": "CallingAE", "value": "CT1", "choice": "CT1"}]
    assert document["rules"][1]["misses"] == [{"keyword": "Modality", "value": "DX", "choices": ["CT", "MR"]}]


def test_rules_test_names_the_expression_that_a_value_fits_and_the_rule_that_asks_nothing(tmp_path: Path) -> None:
    config = tmp_path / "radnode.toml"
    config.write_text('[[rules]]\nmatch = { Modality = ["CT", "re:[CD]X"] }\n[[rules]]\nmatch = {}\n')
    found = CliRunner().invoke(cli, ["rules", "test", str(films.OPACITY), "-c", str(config)])
    assert found.output.splitlines()[:4] == [
        "rule 1: matches, asks for nothing",
        '    Modality is "DX", and the rule has "re:[CD]X"',
        "rule 2: matches, asks for nothing",
        "    it has no match, so it matches every image",
    ]


def test_rule_of_an_unknown_detector_is_a_config_error_in_plain_words(tmp_path: Path) -> None:
    config = tmp_path / "radnode.toml"
    config.write_text('[[rules]]\ndetect = ["cxr-opacty"]\n')
    found = CliRunner().invoke(cli, ["rules", "test", str(films.OPACITY), "-c", str(config)])
    assert isinstance(found.exception, ConfigError)
    assert str(found.exception).startswith("Rule 1 names the detector 'cxr-opacty', but ")

"""The documents say what is there: commands, options, settings, exit codes, events, rules, links."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from radnode import errors
from radnode.audit import events
from radnode.cli import cli
from radnode.report import codes
from radnode.settings import Settings
from radnode.spacing import Basis

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
ALL = "\n".join(PAGES.values())
SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "radnode").rglob("*.py")}
RULES = (
    "tls|pdu|calling|called|certificate|too|address|store|commit_not|protocol|application|association|message|no|"
    "context_not"
)
LOG_METHODS = {"info", "warning", "error", "critical"}


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def log_events() -> set[str]:
    """The first argument of every call of a logger, where it is a word."""
    found = set()
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOG_METHODS:
                for argument in node.args[:1]:
                    found |= {
                        item.value
                        for item in ast.walk(argument)
                        if isinstance(item, ast.Constant) and isinstance(item.value, str) and item.value.islower()
                    }
    return {event for event in found if re.fullmatch(r"[a-z]+(_[a-z]+)*", event)}


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_stands_in_the_table_of_commands(path: tuple[str, ...]) -> None:
    rows = [row for row in PAGES["operating.md"].splitlines() if row.startswith(f"| `radnode {path[0]}")]
    assert any(re.search(rf"`(radnode {path[0]} )?{path[-1]}\b|`radnode {path[-1]}\b", row) for row in rows)


def test_table_of_commands_names_no_command_that_is_not_there() -> None:
    for row in re.findall(r"^\| `radnode (.*?) \|", PAGES["operating.md"], re.MULTILINE):
        group = cli.get_command(click.Context(cli), row.split("`")[0].split()[0])
        assert group is not None
        if isinstance(group, click.Group):
            named = re.findall(r"`(?:radnode \w+ )?(\w+)", "`radnode " + row)
            assert set(named) == set(group.commands)


@pytest.mark.parametrize("option", re.findall(r"radnode [^`\n]*?(--[a-z-]+)", ALL))
def test_every_option_that_is_named_is_there(option: str) -> None:
    known = {"--help"}
    for path in commands():
        command: click.Command = cli
        for name in path:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), name)
            assert found is not None
            command = found
        known |= {name for parameter in command.params for name in parameter.opts}
    assert option in known


def test_every_exit_code_is_explained_in_manual_and_help() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    assert cli.help is not None
    for text in (PAGES["operating.md"], cli.help):
        found = re.search(r"Exit codes: (.*?)\.", text, re.DOTALL)
        assert found is not None
        assert {int(digit) for digit in re.findall(r"\b\d\b", found[1])} == codes | {0, click.UsageError.exit_code}


def test_every_section_of_settings_that_is_named_is_there_with_its_key() -> None:
    for section, key in re.findall(r"`(?:\[\[)?(\w+)\.(\w+)`", ALL):
        if section in Settings.model_fields and f"{section}.{key}" not in ("node.db", "metrics.json"):
            fields = Settings.model_fields[section].annotation
            assert key in getattr(fields, "model_fields", {}), f"{section}.{key}"


def test_every_audit_event_is_explained() -> None:
    for event in events.CATALOGUE.values():
        assert f"{event.code.value} {event.name}" in ALL


def test_every_event_of_the_log_is_explained() -> None:
    described = set(re.findall(r"`([a-z_]+)`", PAGES["operating.md"]))
    assert log_events() - described == set()


def test_every_rule_of_refusal_is_explained() -> None:
    described = set(re.findall(r"`([a-z_]+)`", PAGES["operating.md"]))
    constants = {
        node.value
        for path, tree in SOURCES.items()
        if path.parent.name == "network"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    rules = {word for word in constants if re.fullmatch(f"({RULES})(_[a-z]+)+", word)}
    assert len(rules) > 30
    assert rules - described == set()


def test_every_link_leads_somewhere() -> None:
    for name, text in PAGES.items():
        folder = ROOT if name == "README.md" else ROOT / "docs"
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if not target.startswith(("http://", "https://")):
                assert (folder / target).exists(), f"{name}: {target}"


def test_examples_in_the_pages_are_of_their_language() -> None:
    for language, body in re.findall(r"^ *```(\w+)\n(.*?)^ *```", ALL, re.MULTILINE | re.DOTALL):
        if language == "python":
            compile(body, "example", "exec")
        elif language == "toml":
            tomllib.loads(body)


def test_tiers_and_modules_that_are_named_are_there() -> None:
    for path in re.findall(r"`((?:tests|radnode|scripts|config|docs)/[\w./-]+)`", ALL):
        assert (ROOT / path.rstrip("/.")).exists(), path
    for path in re.findall(r"`((?:network|storage|jobs|audit|detect|report|deliver)/\w+\.py)`", ALL):
        assert (ROOT / "radnode" / path).exists(), path


def test_every_row_of_bad_input_has_tests_that_name_it_in_the_files_that_testing_names() -> None:
    covered: set[int] = set()
    for rows, files in re.findall(r"(?m)^\| ([\d, to]+) \| (.*`(?:peers|crash)/test_.*) \|$", PAGES["testing.md"]):
        wanted: set[int] = set()
        for first, last in re.findall(r"(\d+)(?: to (\d+))?", rows):
            wanted |= set(range(int(first), int(last or first) + 1))
        for path in re.findall(r"`([a-z]+/test_[a-z0-9_]+\.py)`", files):
            named = re.findall(r"(?m)^def test_row_(\d+)_", (ROOT / "tests" / path).read_text(encoding="utf-8"))
            assert set(map(int, named)) & wanted, path
            covered |= set(map(int, named)) & wanted
        assert wanted <= covered
    assert covered == set(range(1, 28))


def test_every_code_of_our_own_and_every_sentence_on_size_is_in_the_page_on_conformance() -> None:
    page = PAGES["conformance.md"]
    for concept in codes.REASONS.values():
        assert f"| {concept.value} | {concept.meaning} |" in page
    for basis in Basis:
        assert f"| {basis.value} |" in page

"""rules test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from radnode.cli.common import config_option, json_option, print_json
from radnode.configuration import find_config, load_settings
from radnode.errors import ConfigError
from radnode.rules import Decision, Miss, Rules, Verdict
from radnode.settings import Settings


@click.group()
def rules() -> None:
    """The rules: which detectors see an image, and where it and its report go."""


@rules.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--calling-ae", default="", metavar="AE", help="The AE title that sends it; else none.")
@config_option
@json_option
def test(file: Path, calling_ae: str, config: Path | None, as_json: bool) -> None:
    """Say which rules match a DICOM file and why, why the others do not, and what would be done with it.

    Needs the configuration alone: no node has to run, and nothing is stored or audited.
    """
    settings = load_settings(find_config(config))
    _check_detectors(settings)
    found = Rules(settings.rules, settings.report.secondary)
    elements = found.elements(file.read_bytes(), calling_ae)
    verdicts, decision = found.verdicts(elements), found.decide(elements)
    if as_json:
        print_json({"rules": [_document(verdict) for verdict in verdicts], "decision": _decided(decision)})
        return
    for verdict in verdicts:
        click.echo(f"rule {verdict.number}: {'no' if verdict.misses else 'matches'}, asks for {_asked(verdict)}")
        for reason in map(_why_not, verdict.misses) if verdict.misses else _why(verdict):
            click.echo(f"    {reason}")
    click.echo("decision: " + "; ".join(f"{key} {_joined(value)}" for key, value in _decided(decision).items()))


def _check_detectors(settings: Settings) -> None:
    """Refuse a rule that names a detector of which no version is installed."""
    folder = settings.path(settings.detect.models)
    for number, rule in enumerate(settings.rules, 1):
        for name in rule.detect:
            if not (folder / name).is_dir():
                raise ConfigError(f"Rule {number} names the detector {name!r}, but {folder} has no such model package.")


def _why(verdict: Verdict) -> Iterator[str]:
    if not verdict.hits:
        yield "it has no match, so it matches every image"
    for hit in verdict.hits:
        yield f'{hit.keyword} is "{hit.value}", and the rule has "{hit.choice}"'


def _why_not(miss: Miss) -> str:
    hint = " (name the sender with --calling-ae)" if miss.keyword == "CallingAE" and not miss.value else ""
    wanted = " or ".join(f'"{choice}"' for choice in miss.choices) or "nothing at all"
    return f'{miss.keyword} is "{miss.value}", and the rule wants {wanted}{hint}'


def _asked(verdict: Verdict) -> str:
    rule = verdict.rule
    asked = [f"detect {_joined(rule.detect)}"] if rule.detect else []
    asked += [f"deliver {_joined(rule.deliver)}"] if rule.deliver else []
    asked += [f"forward {_joined(rule.forward)}"] if rule.forward else []
    asked += [f"priority {rule.priority}"] if rule.priority != "routine" else []
    asked += [f"secondary {_joined(rule.secondary)}"] if rule.secondary is not None else []
    return "; ".join(asked) or "nothing"


def _joined(value: object) -> str:
    return (", ".join(value) or "-") if isinstance(value, tuple) else str(value)


def _decided(decision: Decision) -> dict[str, object]:
    return {**asdict(decision), "priority": decision.priority.name.lower()}


def _document(verdict: Verdict) -> dict[str, object]:
    misses, hits = ([asdict(item) for item in items] for items in (verdict.misses, verdict.hits))
    said = {"rule": verdict.number, "matched": not misses, "misses": misses, "hits": hits}
    return {**said, **verdict.rule.model_dump(mode="json")}

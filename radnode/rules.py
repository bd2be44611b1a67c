"""Rules: which detectors see an image and where its report goes.

Every `[[rules]]` whose `match` fits contributes; detectors and destinations are the union in the order of the file.
A match names Data Elements by keyword (and `CallingAE`); a value fits when it equals one of those listed, or, written
`re:...`, when the regular expression matches all of it. A missing element is the empty string.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword

from radnode.errors import ConfigError
from radnode.settings import RuleSettings

CALLING_AE = "CallingAE"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with one image."""

    detect: tuple[str, ...]
    deliver: tuple[str, ...]


class Rules:
    """The rules of one configuration, compiled once; `detectors` are those that any of them names.

    Raises:
        ConfigError: a match names no Data Element, or a regular expression is not one.
    """

    def __init__(self, rules: Sequence[RuleSettings]) -> None:
        self.detectors = tuple(dict.fromkeys(name for rule in rules for name in rule.detect))
        self._rules = [
            ({key: _patterns(key, value) for key, value in rule.match.items()}, rule.detect, rule.deliver)
            for rule in rules
        ]

    def decide(self, elements: Mapping[str, str]) -> Decision:
        """Return what the matching rules ask for; `elements` maps keywords to values."""
        detect: dict[str, None] = {}
        deliver: dict[str, None] = {}
        for match, detectors, destinations in self._rules:
            if all(_fits(patterns, elements.get(key, "")) for key, patterns in match.items()):
                detect |= dict.fromkeys(detectors)
                deliver |= dict.fromkeys(destinations)
        return Decision(tuple(detect), tuple(deliver))

    def keywords(self) -> frozenset[str]:
        """Return the keywords that any rule looks at."""
        return frozenset(key for match, _detect, _deliver in self._rules for key in match)


def _fits(patterns: Sequence[re.Pattern[str]], value: str) -> bool:
    return any(pattern.fullmatch(value) for pattern in patterns)


def _patterns(keyword: str, value: str | Sequence[str]) -> list[re.Pattern[str]]:
    """Compile the choices one by one, so that each may begin with flags of its own: `re:(?i)chest.*`."""
    if keyword != CALLING_AE and (not keyword or tag_for_keyword(keyword) is None):
        raise ConfigError(f"A rule matches {keyword!r}, which is not the keyword of a Data Element.")
    choices = [value] if isinstance(value, str) else value
    try:
        return [re.compile(_expression(choice), re.DOTALL) for choice in choices]
    except re.error as error:
        raise ConfigError(f"The rule for {keyword} has a broken regular expression: {error}.") from error


def _expression(choice: str) -> str:
    return choice.removeprefix("re:") if choice.startswith("re:") else re.escape(choice)

"""Rules: which detectors see an image, where its report goes, where it is forwarded, and how urgent all of that is.

Every `[[rules]]` whose `match` fits contributes; detectors and destinations are the union in the order of the file, the
priority is the highest. A match names Data Elements by keyword (and `CallingAE`); a value fits when it equals one of
those listed, or, written `re:...`, when the regular expression matches all of it. A missing element is empty.

Intake asks when an image arrives, the worker when it has analysed it; both see the same text (`radnode.attributes`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from radnode.attributes import Attributes
from radnode.errors import ConfigError
from radnode.identify import identify
from radnode.model import Priority
from radnode.part10 import read_file_meta
from radnode.patterns import compiled
from radnode.settings import RuleSettings

CALLING_AE = "CallingAE"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done with one image; `secondary`: the secondary objects of its results, None where unsaid."""

    detect: tuple[str, ...] = ()
    deliver: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    priority: Priority = Priority.ROUTINE
    secondary: tuple[str, ...] | None = None

    def __or__(self, other: Decision) -> Decision:
        """Return what either asks for, as urgent as the more urgent one."""
        return Decision(
            _union(self.detect, other.detect),
            _union(self.deliver, other.deliver),
            _union(self.forward, other.forward),
            max(self.priority, other.priority),
            other.secondary if self.secondary is None else _union(self.secondary, other.secondary or ()),
        )


def _union(*names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a rule does not fit: an element whose value is none of the choices."""

    keyword: str
    value: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """Why a rule fits: an element, and the first of the choices that its value is."""

    keyword: str
    value: str
    choice: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule, counted from 1, says of one image; it fits when it misses nothing."""

    number: int
    rule: RuleSettings
    misses: tuple[Miss, ...]
    hits: tuple[Hit, ...]


class Rules:
    """The rules of one configuration, compiled once.

    `secondary` are the secondary objects where no rule that fits says which. `detectors` are those that any of them
    names, `attributes` the elements that any of them looks at.

    Raises:
        ConfigError: a match names no Data Element with a value, or a regular expression cannot be used.
    """

    def __init__(self, rules: Sequence[RuleSettings], secondary: Sequence[str] = ()) -> None:
        self._secondary = tuple(secondary)
        self.detectors = tuple(dict.fromkeys(name for rule in rules for name in rule.detect))
        self._rules = [_Rule(number, rule) for number, rule in enumerate(rules, 1)]
        self.attributes = Attributes(dict.fromkeys(key for rule in rules for key in rule.match if key != CALLING_AE))

    def decide(self, elements: Mapping[str, str]) -> Decision:
        """Return what the rules that fit ask for; `elements` maps keywords to values."""
        decision = Decision()
        for rule in self._rules:
            if next(rule.misses(elements), None) is None:
                decision |= rule.decision
        return decision if decision.secondary is not None else replace(decision, secondary=self._secondary)

    def verdicts(self, elements: Mapping[str, str]) -> list[Verdict]:
        """Return what each rule says, in the order of the file."""
        return [
            Verdict(rule.number, rule.settings, tuple(rule.misses(elements)), tuple(rule.hits(elements)))
            for rule in self._rules
        ]

    def elements(self, part10: bytes, calling_ae_title: str) -> dict[str, str]:
        """Return what the rules look at in a whole object, which `calling_ae_title` sent.

        Raises:
            InputError: it is not an object that the node would have kept.
        """
        meta = read_file_meta(part10)
        data_set = memoryview(part10)[meta.offset :]
        identity = identify(data_set, meta.transfer_syntax_uid, sys.maxsize, self.attributes)
        return {**identity.attributes, CALLING_AE: calling_ae_title}


class _Rule:
    """One rule and its compiled choices."""

    def __init__(self, number: int, settings: RuleSettings) -> None:
        self.number = number
        self.settings = settings
        priority = Priority[settings.priority.upper()]
        self.decision = Decision(
            tuple(settings.detect), tuple(settings.deliver), tuple(settings.forward), priority, settings.secondary
        )
        self._match = {key: _choices(number, key, value) for key, value in settings.match.items()}

    def misses(self, elements: Mapping[str, str]) -> Iterator[Miss]:
        """Yield each element that does not fit."""
        for keyword, choices in self._match.items():
            value = elements.get(keyword, "")
            if not any(pattern.fullmatch(value) for pattern in choices.values()):
                yield Miss(keyword, value, tuple(choices))

    def hits(self, elements: Mapping[str, str]) -> Iterator[Hit]:
        """Yield each element that fits."""
        for keyword, choices in self._match.items():
            value = elements.get(keyword, "")
            fitting = (choice for choice, pattern in choices.items() if pattern.fullmatch(value))
            if (choice := next(fitting, None)) is not None:
                yield Hit(keyword, value, choice)


def _choices(number: int, keyword: str, value: str | Sequence[str]) -> dict[str, re.Pattern[str]]:
    """Compile the choices one by one, so that each may begin with flags of its own: `re:(?i)chest.*`."""
    try:
        Attributes([keyword] if keyword != CALLING_AE else [])
    except ValueError as error:
        raise ConfigError(f"Rule {number} cannot match {keyword!r}: {error}.") from error
    try:
        return {choice: compiled(choice) for choice in ([value] if isinstance(value, str) else value)}
    except ValueError as error:
        raise ConfigError(f"The regular expression for {keyword} in rule {number} {error}.") from error

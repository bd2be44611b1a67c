"""Patterns: what a value in a rule means, and which regular expressions a peer's values may be held against.

A backtracking matcher can be kept busy for ever by a value made for it, and the values come from strangers. So a group
is not repeated without bound, and there are few unbounded repeats; what remains is polynomial, and a value is short
(`radnode.attributes.MAX_CHARACTERS`).
"""

from __future__ import annotations

import re

MAX_REPEATS = 4  # unbounded ones in one expression
PREFIX = "re:"

# One token of an expression: an escape, a class, a group's end or any character, with the quantifier that follows it.
_TOKEN = re.compile(
    r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\)|[^\\])([*+]|\{\d*,\d*\}|(?<=\))\{(?:[5-9]|\d{2,})\})?", re.DOTALL
)


def compiled(choice: str) -> re.Pattern[str]:
    """Compile one choice of a rule: a value as it is, or after `re:` an expression for the whole value.

    Raises:
        ValueError: the expression is none, or a value could keep it busy; the text says which.
    """
    if not choice.startswith(PREFIX):
        return re.compile(re.escape(choice), re.DOTALL)
    expression = choice.removeprefix(PREFIX)
    try:
        found = re.compile(expression, re.DOTALL)
    except re.error as error:
        raise ValueError(f"is not one ({error})") from error
    repeated = [token for token, quantifier in _TOKEN.findall(expression) if quantifier]
    if ")" in repeated:
        raise ValueError(
            "repeats a group, and a value made for it could keep it busy for ever; list the values instead"
        )
    if len(repeated) > MAX_REPEATS:
        raise ValueError(f"has more than {MAX_REPEATS} repeats, and a value made for it could keep it busy for long")
    return found

"""Patterns: values are meant as they are, and no expression is let in that a stranger's value could keep busy."""

from __future__ import annotations

import re

import pytest

from radnode.patterns import compiled


@pytest.mark.parametrize("value", ["CT", "C.", "(a+)+", "re", "a\\b", "*"])
def test_value_means_itself(value: str) -> None:
    assert compiled(value).fullmatch(value)
    assert not compiled(value).fullmatch(value + "x")


@pytest.mark.parametrize(
    "expression",
    [
        ".*THORAX.*",
        "(?i)(chest|thorax)",
        "ROOM[0-9]+",
        r"\(.*\)",
        "[*+)]{3}",
        "(ab)?",
        "(a|b){2}",
        "[^]]*",
        ".*A.*B.*C.*",
    ],
)
def test_expression_that_ends_soon_is_let_in(expression: str) -> None:
    assert compiled(f"re:{expression}") == re.compile(expression, re.DOTALL)


@pytest.mark.parametrize(
    "expression", ["(a+)+", "(a|a)*b", "(?:x*){2,}", "(.*)*", "((a))+", r"(\))*", "([)])+", "(a*){20}b", "(?:a|aa){5}b"]
)
def test_repeated_group_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="repeats a group"):
        compiled(f"re:{expression}")


def test_more_than_four_repeats_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 4 repeats"):
        compiled("re:.*a.*b.*c.*d.*")


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is not one \(missing \)"):
        compiled("re:(")

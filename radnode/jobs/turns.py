"""Turns: a fair order among the analyses that wait, so that who sends much keeps nobody waiting for all of it.

Among jobs of one priority the lower turn goes first, equal ones in the order they came. A job gets its turn once, when
it is added, one more than

    the last that waits of its study       the images of a study stand in one line;
    or, the first of its study to wait:
    the last that its peer began a study at    studies of one peer begin one after the other, however many they are;
    or, the peer began none that waits:
    the lowest of all that wait            who comes new stands behind nobody but those who are next anyway;
    or, when nobody waits:
    the number of the last job             so that turns never go back, and what is given back is first.

Nobody joins a turn that has come, so that each of them ends and the next one comes: no line waits for ever. Of two
peers with images waiting each gets one analysed in turn, and the single film of a third waits for one of each.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, bindparam, case, func, literal_column, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.sql import ColumnElement

from radnode.jobs.schema import instances, jobs
from radnode.model import JobKind
from radnode.prepared import Prepared

COLUMNS = ("kind", "subject", "destination", "state", "priority", "due", "created", "updated")
_waiting = jobs.alias("waiting")
# Literals, not parameters: SQLite uses a partial index only where the query repeats its condition word for word.
_READY = _waiting.c.state == literal_column("'ready'")
_ZERO, _ONE = (literal_column(digit, Integer) for digit in "01")


def insert_analyses() -> Prepared:
    """Return the insert of analyses; `image` and `urgency` are subject and priority again, for the turn."""
    image: ColumnElement[str] = bindparam("image")
    urgency: ColumnElement[int] = bindparam("urgency")
    study = select(instances.c.study).where(instances.c.instance == image).scalar_subquery()
    peer = select(instances.c.peer).where(instances.c.instance == image).scalar_subquery()
    theirs = select(func.max(_waiting.c.turn)).where(_READY, _waiting.c.priority == urgency)
    last = theirs.where(_waiting.c.study == study).scalar_subquery()
    began = theirs.where(_waiting.c.opens == peer).scalar_subquery()
    kind: ColumnElement[str] = literal_column(f"'{JobKind.ANALYSE.value}'")
    lowest = _lowest(_waiting.c.kind == kind, _waiting.c.destination == literal_column("''"), urgency)
    ever = select(func.max(_waiting.c.job)).scalar_subquery()
    turn = func.coalesce(last, began, lowest, ever, _ZERO) + _ONE
    values = {"study": study, "opens": case((last.is_(None), peer)), "turn": turn}
    return Prepared(upsert(jobs).values(values).on_conflict_do_nothing(), COLUMNS)


def turn_of_who_comes_back() -> ColumnElement[int]:
    """The turn of a job that waits again, for its update: it comes with those who are next."""
    mine = (_waiting.c.kind == jobs.c.kind, _waiting.c.destination == jobs.c.destination)
    return func.coalesce(_lowest(*mine, jobs.c.priority), jobs.c.turn)


def _lowest(kind: ColumnElement[bool], destination: ColumnElement[bool], priority: ColumnElement[int]) -> Any:
    """The lowest turn of all that wait in one line."""
    mine = (_READY, kind, destination, _waiting.c.priority == priority)
    return select(func.min(_waiting.c.turn)).where(*mine).scalar_subquery()

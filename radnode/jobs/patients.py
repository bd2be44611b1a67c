"""Whose images a study holds: a row for each study and patient, so that a second patient in a study is noticed.

One study, one patient (PS3.3 section A.1.2); where a modality was used on the next patient without a new study, or two
systems gave the same UID, a report may end up with the wrong person.
"""

from __future__ import annotations

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.sqlite import insert as upsert

from radnode.jobs.schema import study_patients
from radnode.prepared import OpenTransaction, Prepared

_KNOWN = 4096  # pairs that are remembered, so that an image costs the database nothing in a study that goes on
_INSERT = Prepared(upsert(study_patients).on_conflict_do_nothing(), ["study", "patient"])
_COUNT = Prepared(select(func.count()).where(study_patients.c.study == bindparam("study")), [])


class StudyPatients:
    """Notices patients; used by one thread at a time, within the transactions of one process."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], None] = {}

    def add(self, tx: OpenTransaction, study: str, patient: str) -> bool:
        """Say that an image of a patient is in a study (pseudonyms); True when others were there, and this one was not.

        Raises:
            SQLAlchemyError: the database did not take it.
        """
        pair = (study, patient)
        if pair in self._known:
            return False
        if _INSERT.run(tx, [{"study": study, "patient": patient}]):
            return int(_COUNT.scalar(tx, {"study": study})) > 1
        if len(self._known) >= _KNOWN:
            self._known.pop(next(iter(self._known)))
        self._known[pair] = None
        return False

    def forget(self) -> None:
        """Remember nothing: a transaction in which something was noticed may not have happened."""
        self._known.clear()

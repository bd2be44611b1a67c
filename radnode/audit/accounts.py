"""What people ask the trail for: an accounting of disclosures, who an incident concerns, and what went on.

    disclosures   45 CFR 164.528           to whom data of one patient went, for the six years before
    incident      45 CFR 164.404, 164.408  whose data was touched in a time, which kinds of it, and how many persons
    activity      45 CFR 164.308(a)(1)(ii)(D)  who did how much, what was refused, what was alerted

Each is an `Account`: facts and tables of text, which `radnode.audit.rendering` writes in any form. Reading does not
verify, and the caller audits that it read (TRAIL_READ).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from radnode.audit.events import AuditOutcome

Entry = Mapping[str, Any]
Row = tuple[str, ...]

NOTICE_DAYS = 60  # 45 CFR 164.404(b), 164.408(b): at the latest after discovery
MANY = 500  # 45 CFR 164.406, 164.408(b)

_SENT = {  # what leaves this node, and what of it
    "report_sent": "report of an AI analysis",
    "report_delivered": "report of an AI analysis",
    "image_sent": "image with its patient identification",
    "image_forwarded": "image with its patient identification",
    "result_exported": "report of an AI analysis, as a file",
}
_PURPOSE = "treatment: delivery as the configured rules say"
_UNKNOWN = (
    "Nothing in this period is about this Patient ID and issuer. The same ID with another Issuer of Patient ID "
    "(0010,0021), or with none, is another patient here: ask for each that your images have."
)
_KINDS = {  # kinds of data that an entry is about; 45 CFR 164.404(c)(1)(B)
    "image": frozenset(
        {"image_received", "image_sent", "image_forwarded", "image_analysed", "commitment_reported", "study_purged"}
    ),
    "analysis result": frozenset({"image_analysed", "report_created", "result_read"}),
    "report": frozenset({"report_created", "report_sent", "report_delivered", "result_exported", "delivery_failed"}),
    "record of accesses": frozenset({"trail_read"}),
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a heading."""

    title: str
    columns: Row
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """One report: what it is, what it covers, its tables, and what a reader must know."""

    title: str
    basis: str
    facts: tuple[tuple[str, str], ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Person:
    """What was found about one person in an incident."""

    first: str
    last: str = ""
    name: str = ""
    entries: int = 0
    studies: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    actors: set[str] = field(default_factory=set)


def disclosures(
    entries: Iterable[Entry],
    patient: str,
    recipients: Mapping[str, str],
    period: str,
    reason_of: Callable[[Entry], str | None] = lambda _entry: None,
) -> Account:
    """Return the accounting of disclosures of one patient, called `patient`, from that patient's entries.

    `recipients` says for the name of a destination who that is, where the entry does not; `reason_of` opens the reason
    that a person gave. What a destination first took and later committed is one disclosure.
    """
    rows, seen, within = [], set(), Counter[str]()
    for entry in entries:
        name, detail = _name(entry), entry["detail"]
        if name not in _SENT or entry["outcome"] != AuditOutcome.SUCCESS:
            within[name] += 1
            continue
        where = str(detail.get("destination") or detail.get("recipient") or "")
        told = str(detail.get("result") or entry["instance"])
        what = (name.split("_")[0], where, str(detail.get("recipient", "")), told, str(detail.get("object", "")))
        if where and what in seen:
            continue
        seen.add(what)
        to = _recipient(detail, recipients) if where else f"{_who(entry)} (a file on this node's machine)"
        purpose = str(reason_of(entry) or detail.get("purpose") or (_PURPOSE if where else "not stated"))
        kind = f"{_SENT[name]}: {detail['object']}" if "object" in detail else _SENT[name]
        rows.append((_moment(entry), to, kind, purpose, str(entry["seq"])))
    facts = (("Patient", patient), ("Period", period), ("Disclosures", str(len(rows))))
    unknown = () if rows or set(within) - {"trail_read"} else (_UNKNOWN,)
    kept = tuple((name.replace("_", " "), str(count)) for name, count in sorted(within.items()))
    return Account(
        "Accounting of disclosures",
        "45 CFR 164.528",
        facts,
        (
            Table("Disclosures", ("Date", "To whom", "What", "Purpose", "Entry"), tuple(rows)),
            Table("Other entries about this patient, within this node", ("Event", "Entries"), kept),
        ),
        (
            *unknown,
            "Disclosures for treatment, payment and health care operations need not be accounted for "
            "(164.528(a)(1)(i)); they are listed all the same.",
            "Entry is the number in the audit trail; `radnode audit show` prints it, `radnode audit verify` proves it.",
        ),
    )


def incident(
    entries: Iterable[Entry], period: str, name_of: Callable[[Entry], str] | None, discovered: datetime
) -> Account:
    """Return whose data the entries concern; `name_of` opens the identity in one, None leaves pseudonyms."""
    people: dict[str, _Person] = {}
    for entry in entries:
        pseudonym = entry["patient"]
        if pseudonym is None or _touches_nothing(entry):
            continue
        person = people.setdefault(pseudonym, _Person(_moment(entry)))
        person.last = _moment(entry)
        person.entries += 1
        person.actors.add(_who(entry))
        person.studies |= {entry["study"]} - {None}
        person.kinds |= {kind for kind, names in _KINDS.items() if _name(entry) in names}
        if name_of is not None and not person.name:
            person.name = name_of(entry)
    rows = tuple(
        (
            person.name or pseudonym,
            person.first,
            person.last,
            ", ".join(sorted(person.kinds)) or "identifiers",
            str(len(person.studies)),
            str(person.entries),
            ", ".join(sorted(person.actors)),
        )
        for pseudonym, person in people.items()
    )
    kinds = Counter(kind for person in people.values() for kind in person.kinds or {"identifiers"})
    many, until = len(people) >= MANY, (discovered + timedelta(days=NOTICE_DAYS)).date()
    secretary = (
        f"{MANY} or more: at the same time as the persons, {until} at the latest (164.408(b)); "
        f"the media too where more than {MANY} live in one State (164.406)"
        if many
        else f"fewer than {MANY}: within {NOTICE_DAYS} days after the end of the calendar year (164.408(c))"
    )
    return Account(
        "Persons concerned by an incident",
        "45 CFR 164.404, 164.406, 164.408",
        (
            ("Period of the incident", period),
            ("Discovered", f"{discovered:%Y-%m-%d}"),
            ("Persons", str(len(people))),
            ("Notice to the persons", f"without unreasonable delay, {until} at the latest (164.404(b))"),
            ("Notice to the Secretary", secretary),
        ),
        (
            Table(
                "Kinds of data", ("Kind", "Persons"), tuple((kind, str(count)) for kind, count in kinds.most_common())
            ),
            Table("Persons", ("Person", "First", "Last", "Kinds of data", "Studies", "Entries", "Touched by"), rows),
        ),
        (
            "Who is listed is in an entry of the trail in that time; whether the data was acquired, used or disclosed "
            "without permission is for the hospital to assess (164.402).",
            "A description of what happened, steps for the persons and contacts (164.404(c)(1)) are the hospital's.",
        ),
    )


def activity(entries: Iterable[Entry], period: str) -> Account:
    """Return who did how much, what was refused and what was alerted."""
    events, refusals = Counter[Row](), Counter[Row]()
    actors: dict[str, Counter[str]] = defaultdict(Counter)
    patients: dict[str, set[str]] = defaultdict(set)
    alerts: list[Row] = []
    total = 0
    for entry in entries:
        total += 1
        name, detail = _name(entry), entry["detail"]
        events[name, entry["outcome"]] += 1
        actors[_who(entry)][name] += 1
        if entry["patient"]:
            patients[_who(entry)].add(entry["patient"])
        if name in ("peer_refused", "image_refused", "access_refused"):
            why = str(detail.get("rule") or detail.get("reason") or detail.get("command") or "")
            refusals[_who(entry), name, why] += 1
        if name == "alert" or entry["outcome"] == AuditOutcome.SERIOUS:
            told = "; ".join(f"{key} {value}" for key, value in detail.items())
            alerts.append((str(entry["seq"]), _moment(entry), name, _who(entry), told))
    people = tuple(
        (who, str(counts.total()), str(len(patients[who])), ", ".join(f"{n} {c}" for n, c in counts.most_common()))
        for who, counts in sorted(actors.items(), key=lambda item: -item[1].total())
    )
    return Account(
        "Review of activity",
        "45 CFR 164.308(a)(1)(ii)(D)",
        (("Period", period), ("Entries", str(total)), ("Alerts and failures", str(len(alerts)))),
        (
            Table("Events", ("Event", "Outcome", "Entries"), tuple((*key, str(n)) for key, n in events.most_common())),
            Table("Who", ("Who", "Entries", "Patients", "What"), people),
            Table(
                "Refused", ("Who", "What", "Why", "Entries"), tuple((*key, str(n)) for key, n in refusals.most_common())
            ),
            Table("Alerts and failures", ("Entry", "Date", "Event", "Who", "Detail"), tuple(alerts)),
        ),
        ("Reviewed by: ____________________    Date: ____________    Findings and measures are the hospital's.",),
    )


def describe_period(since: datetime | None, until: datetime | None) -> str:
    """Return a period in words."""
    begin = "the beginning of the trail" if since is None else f"{since.astimezone(UTC):%Y-%m-%d %H:%M}Z"
    end = "now" if until is None else f"{until.astimezone(UTC):%Y-%m-%d %H:%M}Z"
    return f"{begin} to {end}"


def _touches_nothing(entry: Entry) -> bool:
    """Whether an entry names a patient of whose data nothing was shown: pseudonyms alone, or a search in vain."""
    detail = entry["detail"]
    return bool((_name(entry) == "trail_read" and detail.get("purpose") != "identity") or detail.get("count") == 0)


def _recipient(detail: Mapping[str, Any], recipients: Mapping[str, str]) -> str:
    """Return who a destination was when it took something; for entries that do not say, who it is now."""
    where, recipient = str(detail.get("destination", "")), str(detail.get("recipient", ""))
    return f"{where}: {recipient}" if where and recipient else recipients.get(where, where or recipient)


def _name(entry: Entry) -> str:
    return str(entry["event"]).partition(" ")[2]


def _moment(entry: Entry) -> str:
    return f"{entry['timestamp'][:10]} {entry['timestamp'][11:19]}Z"


def _who(entry: Entry) -> str:
    """Return an actor in words: a peer by title and address, a process of the node by title, a person by name."""
    actor = entry["actor"]
    title, user, address = actor["ae"], actor["user"], actor["address"]
    if address:
        return f"{title} at {address}" if title else str(address)
    if title:
        return f"{title} (this node)"
    if user and actor["certificate"]:
        return f"{user} with the certificate {actor['certificate'][:16]}"
    return str(user or "unknown")

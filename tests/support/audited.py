"""The one table of what must stand in the trail after each command and each answer of DICOM.

A command without a row fails `tests/peers/test_audit_complete.py`; whoever adds a command adds its row. An empty tuple
says that nothing is audited, and the comment beside it why. Arguments in braces are filled in by the test.
"""

from __future__ import annotations

from typing import NamedTuple


class Use(NamedTuple):
    """A command line, and the events of the trail that it leaves, in their order."""

    arguments: tuple[str, ...]
    events: tuple[str, ...] = ()
    exit_code: int = 0


COMMANDS: dict[str, tuple[Use, ...]] = {
    # makes the keys and the configuration of another node, which has no trail yet
    "init": (Use(("init", "{fresh}")),),
    # the node that is running: see `SERVING`
    "serve": (),
    "check": (Use(("check",), (), 1),),  # reads no patient data; there are dead letters
    "echo": (Use(("echo",)),),  # moves none
    # what this node takes as a peer; what another takes stands in the trail of that one
    "send": (Use(("send", "{film}"), ("image_received",)),),
    "results list": (
        Use(("results", "list"), ("result_read",) * 2),  # once a patient
        Use(("results", "list", "--patient", "nobody"), ("result_read",)),
    ),
    "results show": (
        Use(("results", "show", "{result}"), ("result_read",)),
        Use(("results", "show", "0123456789abcdef"), (), 1),  # there is nothing of that name to be read
    ),
    "results export": (Use(("results", "export", "{result}", "-o", "{fresh}.dcm"), ("result_exported",)),),
    "jobs list": (
        Use(
            ("jobs", "list"),
        ),
    ),  # pseudonyms alone
    "jobs show": (Use(("jobs", "show", "{job}"), ("command_used",)),),
    "jobs retry": (Use(("jobs", "retry", "{job}"), ("job_changed",)),),
    "jobs repeat": (Use(("jobs", "repeat", "{result}"), ("job_changed",)),),
    "jobs discard": (Use(("jobs", "discard", "{dead}"), ("job_changed",)),),
    "jobs pause": (Use(("jobs", "pause"), ("job_changed",) * 2),),  # both stages
    "jobs resume": (Use(("jobs", "resume"), ("job_changed",) * 2),),
    "rules test": (Use(("rules", "test", "{film}")),),  # a file of the caller's own
    "models list": (Use(("models", "list")),),
    "models verify": (Use(("models", "verify")),),
    "models sign": (
        Use(("models", "sign", "{study}", "--key", "{fresh}.key"), (), 1),
    ),  # needs no node, and so no trail
    "models trust": (Use(("models", "trust", "{public}"), ("model_changed",)),),
    "models distrust": (Use(("models", "distrust", "stranger"), ("model_changed",)),),
    "models add": tuple(Use(("models", "add", f"{{package {version}}}"), ("model_changed",)) for version in "12"),
    "models activate": (Use(("models", "activate", "toy", "1.0.0"), ("model_changed",)),),
    "models shadow": (
        Use(("models", "shadow", "toy", "2.0.0"), ("model_changed",)),
        Use(("models", "shadow", "toy", "--off"), ("model_changed",)),
    ),
    "models compare": (Use(("models", "compare", "toy", "--version", "1.0.0"), (), 1),),  # there is nothing to compare
    "models drift": (Use(("models", "drift")),),  # counts of scores, of nobody
    "models rollback": (Use(("models", "rollback", "toy"), ("model_changed",)),),
    "models remove": (Use(("models", "remove", "toy", "2.0.0"), ("model_changed",)),),
    "audit tail": (
        Use(("audit", "tail"), ("trail_read",)),
        Use(("audit", "tail", "--patient", "4711"), ("trail_read",)),
    ),
    "audit show": (
        Use(("audit", "show", "1"), ("trail_read",)),
        Use(("audit", "show", "1", "--identity"), ("trail_read",)),
    ),
    "audit export": (
        Use(("audit", "export", "{fresh}-trail"), ("trail_read",)),
        Use(("audit", "export", "{fresh}-trail"), (), 1),  # it is there already, and nothing was read
    ),
    "audit report": (
        Use(("audit", "report", "--patient", "4711"), ("trail_read",)),
        Use(("audit", "report", "--incident", "--since", "2026-01-01", "--identity"), ("trail_read",)),
        Use(("audit", "report", "--activity", "--format", "pdf", "-o", "{fresh}.pdf"), ("trail_read",)),
        Use(("audit", "report"), (), 2),  # nothing was asked for
    ),
    "audit verify": (Use(("audit", "verify")),),  # shows no entry, and writes nothing beside what it judges
    "conformance": (Use(("conformance",)),),
    "backup": (Use(("backup", "{fresh}-backup", "--keys", "{fresh}-study-keys"), ("command_used",)),),
    # refused where there is data; what it leaves where there is none stands in tests/unit/test_backup.py
    "restore": (Use(("restore", "{fresh}-backup", "--keys", "{fresh}-study-keys"), (), 1),),
    "keys list": (Use(("keys", "list"), ("command_used",)),),
    "keys rotate": (Use(("keys", "rotate"), ("key_changed",) * 2),),  # begun, and done
    "keys retire": (Use(("keys", "retire", "kek-0001"), ("key_changed",)),),
    "keys forget": (Use(("keys", "forget", "{fresh}-study-keys"), ("key_changed",)),),
    "purge": (
        Use(("purge", "--dry-run", "--study", "{study}"), ("command_used",)),  # says whether it is here, and how large
        Use(("purge", "--dry-run", "--patient", "nobody"), ("command_used",)),  # and whether somebody is known here
        Use(("purge", "--dry-run", "--study", "1.2.3"), ("command_used",), 1),
        Use(("purge", "--study", "{study}"), ("study_purged",)),
    ),
}

# What a node leaves that starts, works, and stops.
SERVING = (
    "node_started",
    "recording_started",
    "image_received",
    "image_analysed",
    "report_created",
    "report_delivered",
)
STOPPING = ("node_stopped", "recording_stopped")

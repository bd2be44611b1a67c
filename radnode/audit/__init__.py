"""The tamper-evident audit trail.

    events.py       what can be audited, and one record of it
    log.py          a record becomes a row of the caller's transaction
    sequencer.py    rows become lines, a tree and checkpoints, in one process
    files.py        durable, private, append-only files
    tree.py         the Merkle tree of RFC 6962
    checkpoint.py   signed notes of C2SP
    notes.py        the checkpoints on disk
    read.py         entries for people
    verify.py       the independent verifier, which uses nothing of the above

The format is written down in docs/audit-trail.md.
"""

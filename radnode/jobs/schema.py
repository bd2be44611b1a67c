"""The tables of the queue and the index. Nothing in them names a patient: pseudonyms, ids, times and states only."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

metadata = MetaData()

instances = Table(
    "instances",
    metadata,
    Column("instance", String(32), primary_key=True),
    Column("series", String(32), nullable=False),
    Column("study", String(32), nullable=False, index=True),
    Column("patient", String(32), nullable=False, index=True),
    Column("object_id", LargeBinary(16), nullable=False, unique=True),
    Column("size", Integer, nullable=False),
    Column("peer", String(16), nullable=False),
    Column("received", Float, nullable=False),
)

study_patients = Table(  # see `radnode.jobs.patients`
    "study_patients",
    metadata,
    Column("study", String(32), primary_key=True),
    Column("patient", String(32), primary_key=True),
    sqlite_with_rowid=False,
)

results = Table(
    "results",
    metadata,
    Column("result", String(16), primary_key=True),
    Column("instance", String(32), ForeignKey("instances.instance"), nullable=False, index=True),
    Column("patient", String(32), nullable=False, index=True),
    Column("study", String(32), nullable=False, index=True),
    Column("model", String(64), nullable=False),
    Column("object_id", LargeBinary(16), nullable=False, unique=True),
    Column("report_id", LargeBinary(16), nullable=False, unique=True),
    Column("created", Float, nullable=False, index=True),
)

secondary = Table(  # the secondary objects of results; the key is the subject of their deliveries
    "secondary",
    metadata,
    Column("secondary", String(32), primary_key=True),  # RESULT.NAME, the name as "sc1"
    Column("result", String(16), ForeignKey("results.result"), nullable=False, index=True),
    Column("object_id", LargeBinary(16), nullable=False, unique=True),
)

shadow_results = Table(  # what versions said that ran in the shadow of the active one
    "shadow_results",
    metadata,
    Column("instance", String(32), ForeignKey("instances.instance"), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("study", String(32), nullable=False, index=True),
    Column("object_id", LargeBinary(16), nullable=False, unique=True),
    Column("created", Float, nullable=False),
    Index("shadow_results_model", "model", "created"),
)

commitments = Table(  # what peers asked this node to commit
    "commitments",
    metadata,
    Column("commitment", String(32), primary_key=True),
    Column("peer", String(16), nullable=False),
    Column("content", String(32), nullable=False),
    Column("object_id", LargeBinary(16), unique=True),  # the sealed request; none once it was answered
    Column("received", Float, nullable=False),
)

sendings = Table(  # what a destination has taken and not committed yet; the key is that of the delivery job
    "sendings",
    metadata,
    Column("kind", String(8), primary_key=True),
    Column("subject", String(32), primary_key=True),
    Column("destination", String(32), primary_key=True),
    Column("instance", String(32), nullable=False),
    Column("transaction_id", String(32), index=True),
    Column("asks", Integer, nullable=False),
    Column("asked", Float),
)

# Series for detectors that look at whole series (`radnode.jobs.completion`). A Series Instance UID that stands in two
# studies, against the standard, is two series.
series = Table(
    "series",
    metadata,
    Column("series", String(32), primary_key=True),
    Column("study", String(32), primary_key=True),
    Column("patient", String(32), nullable=False),
    Column("generation", Integer, nullable=False),  # of its last job; 0: it had none
    Column("expected", Integer),  # how many images, as the data says
    Column("kept", Integer, nullable=False),  # how many images, when it was last looked at
    Column("first", Float, nullable=False),  # since when images wait for a job
    Column("last", Float, nullable=False),  # when `kept` was last seen to grow
    Column("due", Float),  # when to look again; none: every image is in a job
)
Index("series_due", series.c.due, sqlite_where=text("due IS NOT NULL"))

series_images = Table(
    "series_images",
    metadata,
    Column("instance", String(32), ForeignKey("instances.instance"), primary_key=True),
    Column("series", String(32), nullable=False),
    Column("study", String(32), nullable=False),
    Column("generation", Integer, nullable=False),  # the first that holds it; later ones do too
    Index("series_images_series", "series", "study", "generation"),
)

series_results = Table(
    "series_results",
    metadata,
    Column("result", String(16), ForeignKey("results.result"), primary_key=True),
    Column("series", String(32), nullable=False),
    Column("study", String(32), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("detector", String(32), nullable=False),
    Index("series_results_series", "series", "study"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(8), nullable=False),
    # analyse, forward: instance; series: series.generation; deliver: result or secondary; commit: commitment
    Column("subject", String(48), nullable=False),
    Column("destination", String(32), nullable=False, server_default=""),
    Column("state", String(8), nullable=False),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("turn", Integer, nullable=False, server_default="0"),  # see `radnode.jobs.turns`
    Column("study", String(32)),  # whose turns it takes; none where nobody shares
    Column("opens", String(16)),  # the peer, where it was the first of its study to wait
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("interrupted", Integer, nullable=False, server_default="0"),  # how often the whole node died with it leased
    Column("due", Float, nullable=False),
    Column("owner", String(64)),
    Column("token", String(32)),
    Column("expires", Float),
    Column("error", String(200)),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    UniqueConstraint("kind", "subject", "destination"),
    sqlite_autoincrement=True,
)

doomed_objects = Table(  # sealed objects of purged studies whose room was not given back yet
    "doomed_objects",
    metadata,
    Column("object_id", LargeBinary(16), primary_key=True),
)

model_changes = Table(  # see `radnode.jobs.models`
    "model_changes",
    metadata,
    Column("change", Integer, primary_key=True, autoincrement=True),
    Column("model", String(32), nullable=False, index=True),
    Column("active", String(16)),
    Column("shadow", String(16)),
    Column("under", Integer, ForeignKey("model_changes.change")),
    Column("since", Float, nullable=False),
    sqlite_autoincrement=True,
)

score_counts = Table(  # see `radnode.jobs.scores`
    "score_counts",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("bin", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# What is held back for now: work of a stage, by an operator; or images, by the node itself (`radnode.jobs.holds`).
holds = Table(
    "holds",
    metadata,
    Column("hold", String(16), primary_key=True),
    Column("since", Float, nullable=False),
)

# Partial indexes: finished jobs are in none, so that a queue does not slow down with its history.
Index(
    "jobs_ready",
    jobs.c.kind,
    jobs.c.destination,
    jobs.c.priority.desc(),
    jobs.c.turn,
    jobs.c.due,
    jobs.c.job,
    sqlite_where=text("state = 'ready'"),
)
Index(
    "jobs_study",
    *(jobs.c.study, jobs.c.priority, jobs.c.turn),
    sqlite_where=text("state = 'ready' AND study IS NOT NULL"),
)
Index(
    "jobs_opens",
    *(jobs.c.opens, jobs.c.priority, jobs.c.turn),
    sqlite_where=text("state = 'ready' AND opens IS NOT NULL"),
)
Index("jobs_leased", jobs.c.expires, sqlite_where=text("state = 'leased'"))
Index("jobs_dead", jobs.c.updated, sqlite_where=text("state = 'dead'"))

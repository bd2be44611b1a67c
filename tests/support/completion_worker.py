"""A worker's life without detectors: images come and are looked at, series are decided, jobs done, all without a pause.

`python -m support.completion_worker FOLDER anywhere|decision` runs until it is killed; in "decision" it kills itself
when the job of a series is written and not committed.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from radnode.jobs.completion import Completion
from radnode.jobs.database import transaction
from radnode.jobs.index import InstanceRow, add_instance, get_instance
from radnode.jobs.queue import Queue
from radnode.model import JobKind
from radnode.settings import CompletionSettings
from support.rooms import Rooms

SETTINGS = CompletionSettings(quiet_seconds=0.001, force_seconds=1000.0)


class _DyingQueue(Queue):
    """A queue whose process dies when it has written the job of a series."""

    def add(self, *arguments: Any, **options: Any) -> None:
        super().add(*arguments, **options)
        if arguments[1] is JobKind.SERIES:
            os.kill(os.getpid(), signal.SIGKILL)


def look(engine: Engine, jobs: Queue, completion: Completion) -> None:
    """Look at the images that wait, as the worker does: the touch is in the commit that ends the job."""
    for lease in jobs.lease(JobKind.ANALYSE, "worker:1", 60.0, 100):
        with transaction(engine) as tx:
            completion.touch(tx, get_instance(tx, lease.subject), None)
            jobs.finish(tx, lease)


def work(engine: Engine, jobs: Queue) -> None:
    """Do the jobs of series that wait."""
    while leases := jobs.lease(JobKind.SERIES, "worker:1", 60.0):
        for lease in leases:
            with transaction(engine) as tx:
                jobs.finish(tx, lease)


def main(folder: str, where: str) -> None:
    """Live until killed."""
    rooms = Rooms(Path(folder))
    jobs = _DyingQueue(rooms.engine) if where == "decision" else Queue(rooms.engine)
    jobs.release("worker")
    completion = Completion(rooms.engine, jobs, SETTINGS)
    for number in itertools.count():
        names = {"instance": secrets.token_hex(16), "series": f"series-{number % 3}", "study": "study", "patient": "p"}
        row = InstanceRow(**names, object_id=secrets.token_bytes(16), size=1, peer="CT", received=time.time())
        with transaction(rooms.engine) as tx:
            add_instance(tx, row)
            jobs.add(tx, JobKind.ANALYSE, row.instance)
        look(rooms.engine, jobs, completion)
        if number == 3:
            print("began", flush=True)
        time.sleep(0.002)
        completion.decide()
        work(rooms.engine, jobs)


if __name__ == "__main__":
    main(*sys.argv[1:])

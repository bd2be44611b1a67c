"""A modality that deletes only what the node commits: it asks about everything that was acknowledged."""

from __future__ import annotations

import random
import threading
import time
import uuid

from support.committing import SUCCESS, Requester

from hammering.ledger import Ledger
from radnode.model import CommitmentRequest, Reference

_IMAGES = 16  # of one request, at most
_PAUSE_SECONDS = 0.2
_STAY_SECONDS = 1.5  # how long an association is kept for the answer, now and then


class Asker(threading.Thread):
    """Asks for the storage commitment of what any modality was acknowledged, until it is told to end."""

    def __init__(self, requester: Requester, ledger: Ledger, seed: int) -> None:
        super().__init__(name="asker", daemon=True)
        self._requester = requester
        self._ledger = ledger
        self._chance = random.Random(seed)  # noqa: S311 (choices that can be repeated, no secret)
        self._over = threading.Event()
        self._named: set[str] = set()  # images that were asked for

    def run(self) -> None:
        """Ask; what was begun is asked until the node has promised to answer it."""
        while not self._over.wait(_PAUSE_SECONDS):
            request = self._request()
            while request is not None and not self._is_promised(request):
                time.sleep(_PAUSE_SECONDS)

    def end(self) -> None:
        """Begin nothing more."""
        self._over.set()

    def _request(self) -> CommitmentRequest | None:
        """Return what to ask next: acknowledged images that were in no request, and now and then one that was."""
        chosen = sorted(set(self._ledger.acknowledged) - self._named)[:_IMAGES]
        if not chosen:
            return None
        if self._named and self._chance.random() < 0.2:
            chosen.append(self._chance.choice(sorted(self._named)))
        self._named |= set(chosen)
        references = tuple(Reference(self._ledger.images[uid].sop_class, uid) for uid in chosen)
        return CommitmentRequest(f"2.25.{uuid.uuid4().int}", references)  # PS3.5 section B.2

    def _is_promised(self, request: CommitmentRequest) -> bool:
        """Ask once; say whether the node has promised an answer, or has given it, its promise having been lost."""
        stay = _STAY_SECONDS if self._chance.random() < 0.3 else 0.0
        transaction = request.TransactionUID
        if self._requester.ask(request, stay) != SUCCESS and transaction not in self._ledger.committed:
            return False
        self._ledger.record_request(transaction, frozenset(item.SOPInstanceUID for item in request.references))
        return True

"""Whatever is put, aborted, deleted, killed and swept: what is named stays readable, all other room is given back."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.segments import extents, forget, get, object_bytes, put, segments, stored_bytes

from radnode.errors import NotFoundError
from radnode.storage import segments as module
from radnode.storage.segments import SegmentStore

STEP = 300_000
ACTIONS = ["put", "put", "put", "abort", "half", "delete", "close", "crash"]
SIZES = st.sampled_from([1, 4080, 4081, 50_000, 900_000, 2_500_000])


def half(store: SegmentStore, size: int) -> None:
    """Begin an object and never end it."""
    writer = store.create(STEP)
    for _ in range(0, size, STEP):
        writer.room(STEP)[:4] = b"half"
        writer.advance(STEP)


def close_segment(store: SegmentStore) -> None:
    """Let a segment be full."""
    module_bytes, module.SEGMENT_BYTES = module.SEGMENT_BYTES, 0
    try:
        put(store, b"the last")
    finally:
        module.SEGMENT_BYTES = module_bytes


@settings(max_examples=60)
@given(
    steps=st.lists(st.tuples(st.sampled_from(ACTIONS), SIZES), max_size=14),
    seed=st.integers(min_value=0, max_value=2**32),
)
def test_sweep_keeps_exactly_what_is_named(steps: list[tuple[str, int]], seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (no secret)
    with tempfile.TemporaryDirectory() as folder:
        objects = Path(folder) / "objects"
        store = SegmentStore(objects)
        kept: dict[bytes, bytes] = {}  # by id, what the index names
        gone: set[bytes] = set()
        closed = 0

        def crash() -> None:
            nonlocal store
            forget(store)
            store = SegmentStore(objects)
            store.sweep(lambda segment: [object_id for object_id in kept if object_id.startswith(segment)])
            assert {object_id: get(store, object_id) for object_id in kept} == kept
            assert set(extents(objects)) == set(kept)
            assert stored_bytes(objects) == object_bytes(objects)

        for action, size in steps:
            if action == "put":
                content = chance.randbytes(size)
                object_id = put(store, content, STEP)
                gone.discard(object_id)  # the room of one that was aborted
                if chance.random() < 0.6:
                    kept[object_id] = content
                else:
                    gone.add(object_id)
            elif action == "abort":
                writer = store.create(size)
                writer.room(size)
                writer.advance(size)
                writer.abort()
            elif action == "half":
                half(store, size)
            elif action == "delete" and kept:
                object_id = chance.choice(sorted(kept))
                store.delete(object_id)
                gone.add(object_id)
                del kept[object_id]
            elif action == "close" and closed < module._RETIRED:  # after more, the first one's objects count as named
                closed += 1
                close_segment(store)
            elif action == "crash":
                closed = 0
                crash()
        crash()
        for object_id in gone:
            with pytest.raises(NotFoundError):
                get(store, object_id)
        assert {path.suffix for path in segments(objects)} <= {".seg"}
        forget(store)

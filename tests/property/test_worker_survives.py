"""Whatever a peer gets past intake: the worker neither dies on it nor keeps its neighbours waiting."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from support import films
from support.rooms import PEER, modes
from support.worker_bench import WorkerBench

from radnode.errors import InputError
from radnode.identify import WANTED
from radnode.model import Analysis, JobState, StoreRequest
from radnode.node import Node
from radnode.part10 import FileMeta, read_file_meta
from radnode.results import Report
from radnode.settings import Settings

HOSTILE = [b"\xff", b"\0", b"\\", b"^=", b"\x1b$B", b"9", b"-1e999\\", b"ISO_IR 192 ", b"\r\n", b"\xc3"]


@cache
def original() -> tuple[bytes, FileMeta, list[tuple[int, int]]]:
    """A data set, its file meta information, and where the values of what intake does not look at begin and end."""
    dataset = pydicom.dcmread(films.OPACITY)
    dataset.PixelData = bytes(2)
    dataset.Rows = dataset.Columns = 1
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    meta = read_file_meta(buffer.getvalue())
    clean = buffer.getvalue()[meta.offset :]
    elements = data_element_generator(io.BytesIO(clean), is_implicit_VR=False, is_little_endian=True)
    found = [(item.value_tell, item.length) for item in elements if item.length and int(item.tag) not in WANTED]
    return clean, meta, [(start, start + length) for start, length in found if start + length <= len(clean)]


class Bench(WorkerBench):
    """The bench with the node's own reports."""

    def _compose(self, header: Dataset, analysis: Analysis, received: float, predecessors: Sequence[Dataset]) -> Report:
        return Node(Settings()).compose(header, analysis, received, predecessors)


@settings(max_examples=25)
@given(st.data())
def test_mutated_image_ends_in_a_result_or_a_dead_letter_and_its_neighbour_in_a_result(data: st.DataObject) -> None:
    clean, meta, values = original()
    changed = bytearray(clean)
    for start, end in data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=10)):
        filling = data.draw(st.binary(min_size=1, max_size=end - start) | st.sampled_from(HOSTILE))
        changed[start:end] = (filling * (end - start))[: end - start]
    request = StoreRequest(
        PEER, meta.sop_class_uid, meta.sop_instance_uid, meta.sop_class_uid, meta.transfer_syntax_uid
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as every process of a node does
        bench = Bench(Path(folder))
        try:
            bench.rooms.intake.receive(request, bytes(changed))
        except InputError:
            bench.rooms.close()
            return
        bench.receive(1)
        for _ in range(8):
            bench.worker.step()
            bench.rooms.now += 1000
        jobs = {row.subject: row.state for row in bench.jobs()}
        assert len(jobs) == 2
        assert set(jobs.values()) <= {JobState.DONE, JobState.DEAD}
        assert bench.outcomes()["1.2.3.1"] == ("no_finding", None)
        assert "lease_lost" not in bench.log.events()
        assert modes(bench.rooms.objects_folder.iterdir()) == {0o600}
        bench.rooms.close()

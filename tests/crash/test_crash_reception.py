"""A process that is killed while an object arrives: sealed bytes of no object, which the next start sweeps away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.rooms import Rooms, encoded, request_for, small
from support.segments import half_written, segments

RECEIVE = """
import sys
from pathlib import Path
from support.rooms import Rooms, request_for, small
rooms = Rooms(Path(sys.argv[1]))
reception = rooms.intake.begin(request_for(small()))
data = sys.stdin.buffer.read(int(sys.argv[2]))
while data:
    room = reception.room()
    count = min(len(room), len(data))
    room[:count] = data[:count]
    reception.advance(count)
    data = data[count:]
print("half", flush=True)
sys.stdin.read()
"""


def test_kill_in_the_middle_of_an_object_leaves_what_sweep_finds(tmp_path: Path) -> None:
    data = encoded(small(PixelData=bytes(4 << 20), BitsAllocated=8, Rows=2048, Columns=2048))
    half = data[: 3 << 20]
    command = [sys.executable, "-c", RECEIVE, str(tmp_path), str(len(half))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(half)
        process.stdin.flush()
        assert process.stdout.readline() == b"half\n"
        rooms = Rooms(tmp_path)
        assert rooms.vault.sweep(lambda _: []) == 0  # its writer lives
        process.kill()
        process.wait()
    assert half_written(rooms.objects_folder) >= 2 << 20
    assert rooms.kept_objects() == []
    (left,) = segments(rooms.objects_folder)
    assert b"SECRET" not in left.read_bytes()
    assert rooms.vault.sweep(lambda _: []) == 1
    assert segments(rooms.objects_folder) == []
    assert not rooms.intake.receive(request_for(small()), data).known
    rooms.close()

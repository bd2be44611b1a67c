"""The bare torch loop: `python -m benchmarks.bare_detect FILMS MODELS NAME THREADS BATCH`; prints JSON.

That is films a second and processor seconds a film, of the loop and of the network alone.

It reads each file, decodes, prepares and runs the network as the worker does, on as many threads, and does nothing
else; then it runs the network alone over the tensors it has.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from radnode.detect.catalogue import Catalogue
from radnode.detect.package import load_package, load_trusted
from radnode.detect.pixels import FloatImage, decode_pixels, prepare
from radnode.detect.program import place_program


def main(arguments: list[str]) -> None:
    """Measure and print."""
    films, models, name, threads, batch = arguments
    package = load_package(Catalogue(Path(models)).active(name), load_trusted(Path(models)))
    program, device = place_program(package, "auto", int(threads))
    spec = package.manifest.input
    if spec is None:
        raise SystemExit(f"{name} does not look at images")
    paths = sorted(Path(films).glob("*.dcm"))

    def run(tensors: list[FloatImage]) -> None:
        with torch.inference_mode():
            stack = torch.from_numpy(np.stack(tensors)).to(device).contiguous(memory_format=torch.channels_last)
            for part in stack.split(1 if device == "cpu" else len(stack)):
                [item.cpu() for item in program(part)]

    run([np.zeros((len(spec.mean), spec.size, spec.size), dtype=np.float32)] * 2)
    batches = [paths[start : start + int(batch)] for start in range(0, len(paths), int(batch))]
    kept = []
    began, used = time.perf_counter(), time.process_time()
    for some in batches:
        kept.append([prepare(decode_pixels(path.read_bytes()), spec)[0] for path in some])
        run(kept[-1])
    middle, used_by_loop = time.perf_counter(), time.process_time()
    for tensors in kept:
        run(tensors)
    ended, used_by_all = time.perf_counter(), time.process_time()
    count = len(paths)
    loop = count / (middle - began), (used_by_loop - used) / count
    network = count / (ended - middle), (used_by_all - used_by_loop) / count
    print(json.dumps({"loop": loop, "network": network}))


if __name__ == "__main__":
    main(sys.argv[1:])

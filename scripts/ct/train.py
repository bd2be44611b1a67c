"""The whole training, from one CT to a signed package."""

from __future__ import annotations

import argparse

import torch

from ct.fit import fit
from ct.sample import Seeds, allowed_slices
from ct.scan import read_scan
from ct.write import write_package


def train(options: argparse.Namespace) -> None:
    """Train on nodules pasted into the scan, choose the cut, measure, and write the package."""
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    scan = read_scan(options.data)
    seeds = Seeds.of(scan, allowed_slices(len(scan.slices)))
    net = fit(scan, seeds, seed=options.seed, steps=options.steps, work=options.work)
    write_package(net, scan, options)

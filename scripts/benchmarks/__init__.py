"""What scripts/bench measures: one module for each thing that is measured, sent or started."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

"""radnode: a DICOM node with embedded inference."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from radnode.assistant import RadiologistAssistant

__version__ = "0.1.0"
__all__ = ["RadiologistAssistant", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the Python API at its first use (PEP 562), so that a listener starts without what detectors need."""
    if name != "RadiologistAssistant":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("radnode.assistant").RadiologistAssistant

"""Load a network without unpickling anything: torch.export program, TorchScript, or code that an operator installed."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from radnode.errors import PackageError

if TYPE_CHECKING:
    from radnode.detect.manifest import PythonSpec
    from radnode.detect.package import Package

GROUP = "radnode.detectors"
MAX_TABLE_BYTES = 16 << 20

Program = Callable[..., Any]


def place_program(package: Package, device: str, threads: int) -> tuple[Program, str]:
    """Return the network of a package on its device, as a function of tensors, and the name of that device.

    `device` is "auto" (CUDA when there), "cpu" or "cuda"; `threads` bounds torch's intra-op threads.

    Raises:
        PackageError: it holds anything pickled, does not load with this torch, its code is not installed, or there is
            no torch here.
    """
    try:
        import torch  # noqa: PLC0415 (the room imports where torch is missing; a detector needs it)
    except ImportError as error:
        raise PackageError("This installation has no torch; install radnode[detect].") from error
    torch.set_num_threads(threads)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    content, kind = package.read_weights(), package.manifest.weights.rpartition(".")[2]
    if kind == "ts":
        return _load_script(content, chosen), chosen
    if package.manifest.python is not None:
        return _load_code(content, package.manifest.python, chosen), chosen
    return load_program(content).to(chosen), chosen


def load_program(content: bytes) -> Any:
    """Return the module of a `.pt2` archive, on the CPU.

    Raises:
        PackageError: it is no torch.export archive, holds anything pickled, or this torch cannot load it.
    """
    refuse_pickles(content)
    try:
        import torch  # noqa: PLC0415 (so that packages can be listed and checked where torch is missing)

        return torch.export.load(io.BytesIO(content)).module()
    except Exception as error:  # a foreign archive format; torch raises whatever its readers raise
        raise _unloadable(error) from error


def refuse_pickles(content: bytes) -> None:
    """Return when the archive is a PT2 archive whose weights and constants are all raw numbers.

    Raises:
        PackageError: it is not, or loading it would unpickle something.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            root = archive.namelist()[0].partition("/")[0]
            samples = any(item.file_size for item in archive.infolist() if "/data/sample_inputs/" in item.filename)
            tables = [name for name in names if name.endswith("_config.json")]
            entries = [entry for name in tables for entry in _table(archive, f"{root}/{name}")]
    except (zipfile.BadZipFile, ValueError, IndexError, KeyError, OSError) as error:
        raise PackageError("The weights are not a torch.export archive.") from error
    if not any(name.startswith("models/") and name.endswith(".json") for name in names):
        raise PackageError("The weights are not a torch.export archive.")
    pickled = [name for name in names if name.startswith(("data/aotinductor", "data/constants/custom_obj"))]
    if samples or pickled or any(entry.get("use_pickle") is not False for entry in entries):
        raise PackageError("The weights hold pickled objects, which are never loaded.")


def refuse_checkpoint(content: bytes) -> None:
    """Return when the archive is TorchScript, whose reader knows tensors and its own classes only.

    Raises:
        PackageError: it is not; what `torch.save` writes is a pickle, which runs whatever its maker wants.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError) as error:
        raise PackageError("The weights are not TorchScript.") from error
    if "constants.pkl" not in names or not any(name.startswith("code/") for name in names):
        raise PackageError("The weights are a pickle as torch.save writes it, not TorchScript; it is never loaded.")


def refuse_all_but_numbers(content: bytes) -> None:
    """Return when the content is safetensors: the length of a JSON header, the header, raw numbers.

    Raises:
        PackageError: it is not.
    """
    length = int.from_bytes(content[:8], "little")
    try:
        table = json.loads(content[8 : 8 + length]) if length <= min(len(content) - 8, MAX_TABLE_BYTES) else None
    except ValueError as error:
        raise PackageError("The weights are not safetensors.") from error
    if not isinstance(table, dict):
        raise PackageError("The weights are not safetensors.")


def _load_script(content: bytes, device: str) -> Program:
    """Return a function that runs a TorchScript module, the same way at every call.

    Raises:
        PackageError: it is none, or this torch cannot load it.
    """
    refuse_checkpoint(content)
    try:
        import torch  # noqa: PLC0415 (as above)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather have torch.export
            module = torch.jit.load(io.BytesIO(content), map_location=device).eval()
    except Exception as error:  # as above
        raise _unloadable(error) from error

    def run(*inputs: Any) -> Any:
        with torch.jit.optimized_execution(False):  # it would rewrite the program after its first runs
            return module(*inputs)

    return run


def _load_code(content: bytes, spec: PythonSpec, device: str) -> Program:
    """Return what the code of an installed distribution makes of the weights.

    Raises:
        PackageError: that distribution is not installed, not of that version, has no such entry point, or raises.
    """
    refuse_all_but_numbers(content)
    wanted = f"The entry point {spec.entry_point} of {spec.distribution} {spec.version}"
    found = entry_points(group=GROUP, name=spec.entry_point)
    mine = [entry for entry in found if entry.dist is not None and entry.dist.name == spec.distribution]
    if not mine:
        raise PackageError(f"{wanted} is not installed on this machine.")
    version = mine[0].dist.version if mine[0].dist is not None else ""
    if version != spec.version:
        raise PackageError(f"{wanted} is not installed on this machine; version {version} is.")
    try:
        program = mine[0].load()(content)
        if hasattr(program, "to") and hasattr(program, "eval"):
            program = program.to(device).eval()
    except Exception as error:  # foreign code raises whatever it likes
        raise PackageError(f"{wanted} failed to make a network: {type(error).__name__}.") from error
    if not callable(program):
        raise PackageError(f"{wanted} gives nothing that can be called.")
    called: Program = program
    return called


def _unloadable(error: Exception) -> PackageError:
    return PackageError(f"The weights do not load with this torch: {type(error).__name__}.")


def _table(archive: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    """Return the entries of one table of weights or constants."""
    if archive.getinfo(name).file_size > MAX_TABLE_BYTES:
        raise ValueError(f"{name} is too large")
    return list(json.loads(archive.read(name))["config"].values())

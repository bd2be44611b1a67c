"""The analyser: detectors by name, and what they say about images. Used by the worker and by the Python API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from radnode.detect.catalogue import active
from radnode.detect.decoding import DecoderChild
from radnode.detect.detector import Detector
from radnode.detect.gate import check
from radnode.detect.loading import Loading
from radnode.detect.manifest import Accepts
from radnode.detect.package import load_package, load_trusted, stated_level
from radnode.detect.pixels import PixelImage
from radnode.detect.series_detector import SeriesDetector
from radnode.errors import DetectionError, NotFoundError, PackageError
from radnode.model import Analysis, Code, ModelIdentity, Reason, View

RELOAD_SECONDS = 10.0
_FINDING = Code("121071", "DCM", "Finding")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A detector of images that is ready."""

    detector: Detector
    accepts: Accepts


@dataclass(frozen=True, slots=True)
class LoadedSeries:
    """A detector of whole series that is ready."""

    detector: SeriesDetector
    accepts: Accepts


@dataclass(slots=True)
class Task:
    """One image for one detector; `analysis` is there once it was declined or run.

    With `view_side` it has a `view` of that size once its pixels were decoded.
    """

    name: str
    header: Dataset
    part10: bytes
    loaded: Loaded | None
    view_side: int = 0
    view: View | None = None
    _analysis: Analysis | None = None

    @property
    def analysis(self) -> Analysis:
        """Return what came of it."""
        if self._analysis is None:
            raise RuntimeError("the task has not run")
        return self._analysis

    @property
    def pending(self) -> bool:
        """Whether the detector still has to look at it."""
        return self._analysis is None

    def answer(self, answer: Analysis | DetectionError) -> None:
        """Take the detector's answer."""
        if isinstance(answer, Analysis):
            self._analysis = answer
        else:
            self.decline(answer.reason)

    def decline(self, reason: Reason) -> None:
        """Say why there is no result."""
        self._analysis = declined(self.name, self.loaded, reason)


@dataclass(frozen=True, slots=True)
class Batch:
    """Decoded images for one detector."""

    detector: Detector
    tasks: list[Task]
    images: list[PixelImage]

    def add(self, task: Task, image: PixelImage) -> None:
        """Add one image."""
        self.tasks.append(task)
        self.images.append(image)

    def run(self) -> None:
        """Show the images to the detector; every task has its analysis after."""
        for task, answer in zip(self.tasks, self.detector.detect(self.images), strict=True):
            task.answer(answer)


class Analyser:
    """The active detectors of a models folder, loaded once and kept warm.

    `refused` is told a model's name, with its version where one is active, and why it does not load. `loading` ends the
    process when one hangs; None waits for it.
    """

    def __init__(
        self,
        models: Path,
        decoder: DecoderChild,
        *,
        device: str,
        threads: int,
        refused: Callable[[str, str], None],
        loading: Loading | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._decoder = decoder
        self._device = device
        self._threads = threads
        self._refused = refused
        self._loading = loading
        self._clock = clock
        self._loaded: dict[str, Loaded | LoadedSeries] = {}
        self._tried: dict[str, float] = {}
        self._said: dict[str, str] = {}  # why a detector is not usable, said once

    def start(self) -> None:
        """Start the decoding process now, so that the first image need not wait for it.

        Raises:
            DecoderUnavailable: it does not come up.
        """
        self._decoder.start()

    def load(self, name: str) -> Loaded | LoadedSeries | None:
        """Return a detector, loading it at the first call; None when its package is not usable now."""
        if name not in self._loaded and self._clock() >= self._tried.get(name, 0.0):
            self._tried[name] = self._clock() + RELOAD_SECONDS
            model = name
            try:
                folder = active(self._models, name)
                model = f"{name} {folder.name}"
                if self._loading is not None:
                    self._loading.begin(folder)
                package = load_package(folder, load_trusted(self._models))
                accepts, how = package.manifest.accepts, (package, self._device, self._threads)
                whole = accepts.level == "series"
                self._loaded[name] = (
                    LoadedSeries(SeriesDetector(*how), accepts) if whole else Loaded(Detector(*how), accepts)
                )
                self._said.pop(name, None)
            except (PackageError, NotFoundError) as error:
                if self._said.get(name) != (sentence := f"{model}: {error}"):
                    self._said[name] = sentence
                    self._refused(model, str(error))
            finally:
                if self._loading is not None:
                    self._loading.end()
        return self._loaded.get(name)

    def looks_at_series(self, name: str) -> bool:
        """Say whether a detector looks at whole series, one that does not load by what its manifest says."""
        loaded = self.load(name)
        if loaded is not None:
            return isinstance(loaded, LoadedSeries)
        try:
            return stated_level(active(self._models, name)) == "series"
        except NotFoundError:
            return False

    def load_series(self, name: str) -> LoadedSeries | None:
        """Return a detector of whole series as `load` does; None where it is none, or not usable now."""
        loaded = self.load(name)
        return loaded if isinstance(loaded, LoadedSeries) else None

    def task(self, name: str, header: Dataset, part10: bytes, view_side: int = 0) -> Task:
        """Return the task of showing one image to a detector of images, declined already where the gate refuses it."""
        loaded = self.load(name)
        task = Task(name, header, part10, loaded if isinstance(loaded, Loaded) else None, view_side)
        if task.loaded is None:
            task.decline(Reason.MODEL_UNAVAILABLE)
        else:
            try:
                check(header, task.loaded.accepts)
            except DetectionError as error:
                task.decline(error.reason)
        return task

    def decode(self, tasks: Sequence[Task]) -> list[Batch]:
        """Decode the pixels of what is pending, each image once; return one batch a detector.

        Raises:
            DecoderUnavailable: the decoding process does not start.
        """
        batches: dict[str, Batch] = {}
        decoded: dict[int, PixelImage | DetectionError] = {}
        sizes = {task.loaded.detector.input_size for task in tasks if task.loaded is not None and task.pending}
        reduce_to = sizes.pop() if len(sizes) == 1 else None
        for task in tasks:
            if task.loaded is None or not task.pending:
                continue
            image = decoded.get(id(task.part10)) or self._try_decoding(task.part10, reduce_to, task.view_side)
            decoded[id(task.part10)] = image
            if isinstance(image, DetectionError):
                task.decline(image.reason)
            else:
                task.view = image.view
                batches.setdefault(task.name, Batch(task.loaded.detector, [], [])).add(task, image)
        return list(batches.values())

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def decode_one(self, part10: bytes, reduce_to: int | None, view_side: int = 0) -> PixelImage:
        """Decode one image; arguments and errors as of `DecoderChild.decode`."""
        return self._decoder.decode(part10, reduce_to, view_side)

    def _try_decoding(self, part10: bytes, reduce_to: int | None, view_side: int) -> PixelImage | DetectionError:
        try:
            return self.decode_one(part10, reduce_to, view_side)
        except DetectionError as error:
            return error


def declined(name: str, loaded: Loaded | LoadedSeries | None, reason: Reason) -> Analysis:
    """Return the analysis that says why a detector, loaded or not, gave no result."""
    if loaded is None:
        return Analysis.without_result(reason, _unavailable(name), _FINDING)
    return Analysis.without_result(reason, loaded.detector.identity, loaded.detector.target)


def _unavailable(name: str) -> ModelIdentity:
    """The identity of a detector of which only the name is known."""
    device_uid = f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'radnode detector {name}').int}"
    return ModelIdentity(
        name=name, version="not loaded", device_uid=device_uid, digest="0" * 64, manufacturer="radnode"
    )

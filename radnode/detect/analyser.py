"""The analyser: detectors by name, and what they say about images. Used by the worker and by the Python API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from radnode.detect.catalogue import Catalogue
from radnode.detect.decoding import DecoderChild
from radnode.detect.detector import Detector
from radnode.detect.gate import check
from radnode.detect.loading import Loading
from radnode.detect.manifest import Accepts, Manifest
from radnode.detect.package import load_package, load_trusted, stated_level
from radnode.detect.pixels import PixelImage
from radnode.detect.series_detector import SeriesDetector
from radnode.errors import DetectionError, NotFoundError, PackageError
from radnode.model import Analysis, Code, ModelIdentity, Reason, View
from radnode.settings import Precision

RELOAD_SECONDS = 10.0
_FINDING = Code("121071", "DCM", "Finding")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A detector of images that is ready."""

    detector: Detector
    manifest: Manifest
    path: Path

    @property
    def accepts(self) -> Accepts:
        """What the quality gate lets through."""
        return self.manifest.accepts


@dataclass(frozen=True, slots=True)
class LoadedSeries:
    """A detector of whole series that is ready."""

    detector: SeriesDetector
    manifest: Manifest
    path: Path

    @property
    def accepts(self) -> Accepts:
        """What the quality gate lets through."""
        return self.manifest.accepts


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

    @property
    def one_by_one(self) -> bool:
        """Whether its network takes one image at a time, whatever the batch."""
        return self.loaded is None or self.loaded.detector.one_by_one

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


def load_detector(
    folder: Path, models: Path, device: str, threads: int, precision: Precision = "float32"
) -> Loaded | LoadedSeries:
    """Return the detector of the package in `folder`, which a key that `models` trusts has signed.

    Raises:
        PackageError: it cannot be used.
    """
    package = load_package(folder, load_trusted(models))
    if package.manifest.accepts.level == "series":
        return LoadedSeries(SeriesDetector(package, device, threads), package.manifest, folder)
    return Loaded(Detector(package, device, threads, precision), package.manifest, folder)


class Analyser:
    """The active detectors of a catalogue, loaded once and kept warm until another version is active.

    `refused` is told a model's name, with its version where one is active, and why it does not load, `ready` name and
    version of one that does. `loading` ends the process when one hangs; None waits for it.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        decoder: DecoderChild,
        *,
        device: str,
        threads: int,
        precision: Precision = "float32",
        refused: Callable[[str, str], None],
        ready: Callable[[str], None] = lambda _model: None,
        loading: Loading | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalogue = catalogue
        self._decoder = decoder
        self._device = device
        self._threads = threads
        self._precision = precision
        self._refused = refused
        self._ready = ready
        self._loading = loading
        self._clock = clock
        self._wanted: dict[str, Path] = {}  # the folders of the active versions, since the last change
        self._loaded: dict[str, Loaded | LoadedSeries] = {}
        self._beside: dict[str, Path | None] = {}  # the folders of the versions in the shadow, since the last change
        self._shadows: dict[str, Loaded | LoadedSeries] = {}
        self._shadow_tried: dict[str, float] = {}
        self._tried: dict[str, float] = {}
        self._said: dict[str, str] = {}  # why a detector is not usable, said once
        self._change = catalogue.newest_change()

    def start(self) -> None:
        """Start the decoding process now, so that the first image need not wait for it.

        Raises:
            DecoderUnavailable: it does not come up.
        """
        self._decoder.start()

    def refresh(self) -> None:
        """Load what was activated since the last call; what is analysed from now on is analysed by that.

        Raises:
            StoreUnavailable: nobody can tell now.
        """
        change = self._catalogue.newest_change()
        if change != self._change:
            self._change = change
            names = list(self._wanted.keys() | self._loaded.keys() | self._tried.keys())
            self._beside.clear()
            self._shadow_tried.clear()
            self._wanted.clear()
            self._tried.clear()
            for name in names:
                self.load(name)

    def load(self, name: str) -> Loaded | LoadedSeries | None:
        """Return a detector, loading it at the first call; None when none is active, or its package is not usable now.

        An activated version that is not usable leaves the one that ran before it in place.
        """
        current = self._loaded.get(name)
        if current is not None and current.path == self._wanted.get(name):
            return current
        if self._clock() >= self._tried.get(name, 0.0):
            model = name
            try:
                folder = self._wanted[name] = self._catalogue.active(name)
                if current is None or current.path != folder:
                    model = f"{name} {folder.name}"
                    self._loaded[name] = self._load(folder)
                    self._ready(model)
                self._said.pop(name, None)
            except NotFoundError as error:
                self._loaded.pop(name, None)
                self._say(name, model, str(error))
            except PackageError as error:
                self._say(name, model, str(error))
            self._tried[name] = self._clock() + RELOAD_SECONDS
        return self._loaded.get(name)

    def has_shadow(self, name: str) -> bool:
        """Say whether a version is to run in the shadow of a detector."""
        if name not in self._beside:
            self._beside[name] = self._catalogue.shadow(name)
        return self._beside[name] is not None

    def shadow(self, name: str) -> Loaded | LoadedSeries | None:
        """Return the detector that runs in the shadow of another; None when none does, or it is not usable now."""
        folder = self._beside[name] if self.has_shadow(name) else None
        if folder is None:
            self._shadows.pop(name, None)
            return None
        model = f"{name} {folder.name}"
        current = self._shadows.get(name)
        if (current is None or current.path != folder) and self._clock() >= self._shadow_tried.get(name, 0.0):
            self._shadows.pop(name, None)
            try:
                self._shadows[name] = self._load(folder)
                self._said.pop(model, None)
                self._ready(model)
            except PackageError as error:
                self._say(model, model, str(error))
            self._shadow_tried[name] = self._clock() + RELOAD_SECONDS
        return self._shadows.get(name)

    @contextmanager
    def watching(self, folder: Path, seconds: float) -> Iterator[None]:
        """Watch a package that runs in the shadow: where it hangs, this process ends and it is left alone for a while.

        Raises:
            PackageError: it hung not long ago.
        """
        if self._loading is not None:
            self._loading.begin(folder, seconds)
        try:
            yield
        finally:
            if self._loading is not None:
                self._loading.end()

    def looks_at_series(self, name: str) -> bool:
        """Say whether a detector looks at whole series, one that does not load by what its manifest says."""
        loaded = self.load(name)
        if loaded is not None:
            return isinstance(loaded, LoadedSeries)
        try:
            return stated_level(self._catalogue.active(name)) == "series"
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

    def _load(self, folder: Path) -> Loaded | LoadedSeries:
        """Load a package, watched.

        Raises:
            PackageError: it cannot be used.
        """
        try:
            if self._loading is not None:
                self._loading.begin(folder)
            return load_detector(folder, self._catalogue.folder, self._device, self._threads, self._precision)
        finally:
            if self._loading is not None:
                self._loading.end()

    def _say(self, name: str, model: str, why: str) -> None:
        """Tell once that a detector is not usable."""
        if self._said.get(name) != (sentence := f"{model}: {why}"):
            self._said[name] = sentence
            self._refused(model, why)

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

"""The manifest of a model package, `model.toml`, as frozen typed models. Without torch."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from radnode.errors import PackageError
from radnode.model import Code

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CodeSpec(_Table):
    """A coded concept as the manifest writes it."""

    value: str = Field(min_length=1, max_length=16)
    scheme: str = Field(min_length=1, max_length=16)
    meaning: str = Field(min_length=1, max_length=64)

    @property
    def code(self) -> Code:
        """The same as the value that crosses rooms."""
        return Code(self.value, self.scheme, self.meaning)


class Accepts(_Table):
    """What the quality gate lets through; an attribute that the image lacks is judged by `missing_*`."""

    level: Literal["instance", "series"]
    sop_classes: tuple[str, ...] = Field(min_length=1)
    modalities: tuple[str, ...] = Field(min_length=1)
    body_parts: tuple[str, ...]
    """Values of Body Part Examined, upper case; empty accepts any."""
    views: tuple[str, ...]
    """Values of View Position, upper case; empty accepts any."""
    missing_body_part: Literal["accept", "decline"]
    missing_view: Literal["accept", "decline"]
    photometric_interpretations: tuple[str, ...] = Field(min_length=1)
    min_rows: int = Field(ge=1)
    min_columns: int = Field(ge=1)
    min_age_years: int | None = Field(default=None, ge=1, le=130)
    """Whole years at the study; None accepts any age, and an image that does not say the age is accepted."""


class InputSpec(_Table):
    """How pixels become the tensor float32 (channels, size, size): see `radnode.detect.pixels.prepare`.

    What becomes 0 and 1 is either two `percentiles` of the image or a fixed `window` in the units of the modality; then
    each channel is (value - `mean`) / `std`. There are as many channels as means, one or three.
    """

    size: int = Field(ge=32, le=4096)
    percentiles: tuple[float, float] | None = None
    window: tuple[float, float] | None = None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @model_validator(mode="after")
    def _usable(self) -> InputSpec:
        if (self.percentiles is None) == (self.window is None):
            raise ValueError("either percentiles or window says what becomes 0 and 1")
        if self.percentiles is not None and not 0.0 <= self.percentiles[0] < self.percentiles[1] <= 100.0:
            raise ValueError("percentiles are two rising numbers within 0..100")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError("window is two rising numbers")
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError("mean and std have one number each, or three")
        if min(self.std) <= 0.0:
            raise ValueError("std is above 0 in every channel")
        return self


class VolumeSpec(_Table):
    """How the slices of a series become the volume float32 (1, slices, size, size): see `radnode.detect.volume`.

    `window` is what becomes 0 and 1, in the units of the modality (Hounsfield units in CT); what is outside is cut.
    """

    size: int = Field(ge=32, le=1024)
    window: tuple[float, float]
    min_slices: int = Field(ge=2)
    max_slices: int = Field(le=4096)
    """Together with `size` the limit on memory: 1000 slices of 512 x 512 take 1 GiB."""

    @model_validator(mode="after")
    def _usable(self) -> VolumeSpec:
        if self.window[0] >= self.window[1]:
            raise ValueError("window is two rising numbers")
        if self.min_slices > self.max_slices:
            raise ValueError("max_slices is at least min_slices")
        return self


class RegionSpec(_Table):
    """How boxes are cut from the heat map, whose cells are probabilities after the sigmoid.

    A cell belongs to a region when it is at least max(`share_of_peak` x highest cell, `floor`); touching cells
    (8 neighbours, of a series 26) are one region; a region whose highest cell is under `min_peak` is dropped. A
    contour, of a series only, is drawn around the cells of a region that are at least half as hot as its highest one.
    """

    kind: Literal["box", "contour"]
    share_of_peak: Probability
    floor: Probability
    min_peak: Probability
    max_regions: int = Field(ge=1, le=50)


class Calibration(_Table):
    """score = sigmoid(`slope` x image logit + `intercept`)."""

    method: Literal["platt"]
    slope: float = Field(gt=0.0)
    intercept: float


class OutputSpec(_Table):
    """What the network's numbers mean.

    By the form "score_and_map" it returns for images logits (N,) and heat logits (N, cells, cells), for a series one
    logit (1,) and heat logits (1, slices, cells, cells). By "classes" it returns (N, K), by "map" (N, K, rows,
    columns), for images: `channel` says which of the K is meant, from 0, and `activation` what turns it into a
    probability, "none" where it is one. The image logit of a map is its highest; classes have no region.
    """

    form: Literal["score_and_map", "classes", "map"] = "score_and_map"
    channel: int = Field(default=0, ge=0)
    activation: Literal["sigmoid", "softmax", "none"] = "sigmoid"
    finding: CodeSpec
    site: CodeSpec
    threshold: Probability
    calibration: Calibration
    deciles: tuple[Probability, ...] = ()
    """The nine deciles of the score in the card's patients, which drift is measured from; empty: it is not."""
    region: RegionSpec = RegionSpec(kind="box", share_of_peak=0.5, floor=0.5, min_peak=0.5, max_regions=10)

    @model_validator(mode="after")
    def _region_is_said_where_there_is_a_map(self) -> OutputSpec:
        if (self.form == "classes") == ("region" in self.model_fields_set):
            raise ValueError("a map has a region, classes have none")
        if self.deciles and (len(self.deciles) != 9 or list(self.deciles) != sorted(set(self.deciles))):
            raise ValueError("deciles are nine rising scores")
        if self.form == "score_and_map" and {"channel", "activation"} & self.model_fields_set:
            raise ValueError("channel and activation are for the forms classes and map")
        return self


class Source(_Table):
    """One data set that the model was trained on."""

    name: str
    licence: str
    citation: str
    images: int = Field(ge=0)
    patients: int = Field(ge=0)


class Training(_Table):
    """The training statement."""

    sources: tuple[Source, ...] = Field(min_length=1)
    split: str
    deidentification: str
    pretrained: str
    seed: int
    command: str


class Measured(_Table):
    """One figure with its 95 % confidence interval; `of` says which model on which patients."""

    name: str
    value: float
    low: float
    high: float
    of: str


class PythonSpec(_Table):
    """The code that makes the network: an entry point of the group `radnode.detectors`, of this very distribution."""

    entry_point: str = Field(min_length=1, max_length=64)
    distribution: str = Field(min_length=1, max_length=64)
    version: str = Field(min_length=1, max_length=32)


class Manifest(_Table):
    """One `model.toml`. `files` holds the SHA-256 of every other file of the package but the signature.

    A detector of images has an `input`, one of whole series a `volume`.
    """

    format: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    version: str = Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")
    device_uid: str = Field(pattern=r"^2\.25\.(0|[1-9]\d{0,38})$", max_length=64)
    manufacturer: str = Field(min_length=1, max_length=64)
    status: Literal["research", "experimental"]
    """Neither is for clinical use; what is experimental says so in each report."""
    licence: str
    intended_use: str
    weights: FileName
    files: dict[FileName, Sha256]
    accepts: Accepts
    input: InputSpec | None = None
    volume: VolumeSpec | None = None
    python: PythonSpec | None = None
    output: OutputSpec
    training: Training
    performance: tuple[Measured, ...]

    @model_validator(mode="after")
    def _level_has_its_table(self) -> Manifest:
        if self.accepts.level == "instance" and (self.input is None or self.volume is not None):
            raise ValueError("the level instance has the table input and not the table volume")
        if self.accepts.level == "series" and (self.volume is None or self.input is not None):
            raise ValueError("the level series has the table volume and not the table input")
        if self.accepts.level == "instance" and self.output.region.kind != "box":
            raise ValueError("the level instance has regions of the kind box")
        return self

    @model_validator(mode="after")
    def _weights_are_safe(self) -> Manifest:
        if self.weights not in self.files:
            raise ValueError("the weights are not among the files")
        kind = self.weights.rpartition(".")[2]
        if kind not in ("pt2", "ts", "safetensors"):
            raise ValueError("weights are .pt2 (torch.export), .ts (TorchScript) or .safetensors; no pickle is loaded")
        if (kind == "safetensors") != (self.python is not None):
            raise ValueError("weights of the kind .safetensors need the table python, and no others have it")
        return self

    @model_validator(mode="after")
    def _form_is_of_its_level(self) -> Manifest:
        if self.accepts.level == "series" and self.output.form != "score_and_map":
            raise ValueError("the level series has the form score_and_map")
        return self


def parse_manifest(text: bytes) -> Manifest:
    """Return the manifest that `text` holds.

    Raises:
        PackageError: it is not TOML, lacks a key, has an unknown one, or a value is out of range.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise PackageError(f"The manifest is not valid TOML: {type(error).__name__}.") from error
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "model.toml"
        raise PackageError(f"The manifest is not usable: {where}: {first['msg']}.") from error

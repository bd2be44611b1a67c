"""Making a package of a model that somebody has: the folder with its manifest to fill in, and its signature.

Imports without torch, and runs nothing of the model.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from radnode.detect.catalogue import NAME, VERSION
from radnode.detect.package import MANIFEST, SIGNATURE, package_files, sign_package
from radnode.detect.program import refuse_all_but_numbers, refuse_checkpoint, refuse_pickles
from radnode.errors import PackageError

CARD = "MODEL_CARD.md"
MARK = "FILL IN"
# PS3.6 Annex A
_X_RAY = ("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1")
_CLASSES = {
    "CT": ("1.2.840.10008.5.1.4.1.1.2",),
    "MR": ("1.2.840.10008.5.1.4.1.1.4",),
    "MG": ("1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"),
    "US": ("1.2.840.10008.5.1.4.1.1.6.1",),
}
_XRV = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
_REGION = """region = { kind = "box", share_of_peak = 0.5, floor = 0.5, min_peak = 0.5, max_regions = 10 }
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What a template states of a model: its network's file and what can be known of its numbers."""

    weights: Path
    size: int = 224
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    form: str = "classes"
    activation: str = "sigmoid"
    outputs: tuple[str, ...] = ()  # what each channel of the output is about, where that is known
    channel: int = 0
    modalities: tuple[str, ...] = ("CR", "DX")
    licence: str = f"{MARK}: the licence of the weights"
    manufacturer: str = f"{MARK}: who made it"
    intended_use: str = f"{MARK}: what it is for, and what not"
    source: str = "not stated"
    is_code: bool = False


def draft_torchscript(path: Path) -> Draft:
    """Return the draft of a TorchScript file. Raises PackageError when it is none."""
    refuse_checkpoint(_read(path))
    return Draft(path)


def draft_export(path: Path) -> Draft:
    """Return the draft of a torch.export program. Raises PackageError when it is none."""
    refuse_pickles(_read(path))
    return Draft(path)


def draft_torchxrayvision(path: Path) -> Draft:
    """Return the draft of a classifier of torchxrayvision that was exported or scripted.

    One channel of 224 x 224 in -1024..1024, 18 outputs that are probabilities already. Raises PackageError when the
    file is neither.
    """
    draft = draft_export(path) if path.suffix == ".pt2" else draft_torchscript(path)
    channel = _XRV.index("Lung Opacity")
    return Draft(draft.weights, std=(1 / 2048,), activation="none", outputs=_XRV, channel=channel)


def draft_python(path: Path) -> Draft:
    """Return the draft of weights in safetensors for code that is installed. Raises PackageError when they are none."""
    refuse_all_but_numbers(_read(path))
    return Draft(path, is_code=True)


def draft_monai(path: Path) -> Draft:
    """Return the draft of a MONAI bundle: its folder, or its TorchScript file with the metadata inside.

    The bundle's own transforms are not run: its `metadata.json` says what the input is, as far as it does.

    Raises:
        PackageError: it is none, or its network is not for images in two dimensions.
    """
    weights, document = _bundle(path)
    refuse_checkpoint(_read(weights))
    try:
        formats = document["network_data_format"]
        [image] = formats["inputs"].values()
        prediction = next(iter(formats["outputs"].values()))
        shape = [int(side) for side in image["spatial_shape"]]
        channels, low, high = int(image["num_channels"]), *_range(image.get("value_range"))
        outputs = int(prediction["num_channels"])
        has_map = len(prediction.get("spatial_shape") or ()) == len(shape) and min(prediction["spatial_shape"]) > 1
        names = tuple(str(name) for _, name in sorted((prediction.get("channel_def") or {}).items(), key=_number))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise PackageError(
            "The bundle's metadata.json does not say one image as its input and what comes out."
        ) from error
    if len(shape) != 2 or channels not in (1, 3):
        raise PackageError(f"The bundle looks at {len(shape)} dimensions and {channels} channels, not at one image.")
    modality = str(image.get("modality", "")).upper()
    return Draft(
        weights,
        size=max(shape),
        mean=(-low / (high - low),) * channels,
        std=(1.0 / (high - low),) * channels,
        form="map" if has_map else "classes",
        activation="softmax" if outputs > 1 else "sigmoid",
        outputs=names,
        channel=1 if outputs > 1 else 0,
        modalities=(modality,) if modality in _CLASSES else ("CR", "DX"),
        licence=str(document.get("license") or document.get("copyright") or f"{MARK}: the licence of the weights"),
        manufacturer=str(document.get("authors") or document.get("authorship") or f"{MARK}: who made it")[:64],
        intended_use=str(document.get("intended_use") or f"{MARK}: what it is for, and what not"),
        source=str(document.get("data_source") or "not stated"),
    )


TEMPLATES = {
    "torchscript": draft_torchscript,
    "export": draft_export,
    "monai": draft_monai,
    "torchxrayvision": draft_torchxrayvision,
    "python": draft_python,
}


def make_package(kind: str, source: Path, folder: Path, name: str, version: str) -> Path:
    """Write a package of a model of some kind (a key of TEMPLATES), to fill in and sign; return its manifest.

    Raises:
        PackageError: the source is not of that kind, the name or version cannot be one, or the folder exists.
    """
    if not NAME.fullmatch(name) or not VERSION.fullmatch(version):
        raise PackageError(
            f"{name!r} {version!r} is not a name in lower case, digits and hyphens and a version as 1.0.0."
        )
    draft = TEMPLATES[kind](source)
    try:
        folder.mkdir(parents=True)
        suffix = ".safetensors" if draft.is_code else ".pt2" if draft.weights.suffix == ".pt2" else ".ts"
        (folder / f"weights{suffix}").write_bytes(_read(draft.weights))
        (folder / CARD).write_text(f"# {name} {version}\n\nSay here how well it does, and where nobody knows.\n")
        text = Template((files("radnode") / "templates" / "model.toml").read_text(encoding="utf-8"))
        values = {"name": json.dumps(name), "version": json.dumps(version), "weights": f'"weights{suffix}"'}
        (folder / MANIFEST).write_text(text.substitute(values | _values(draft)), encoding="utf-8")
    except FileExistsError as error:
        raise PackageError(f"{folder} exists already; choose another with --output.") from error
    except OSError as error:
        raise PackageError(f"The package cannot be written to {folder}: {error.strerror}.") from error
    return folder / MANIFEST


def sign(folder: Path, key: Path, key_id: str) -> None:
    """Write the digests of all files into the manifest and sign it; a key is made where there is none.

    The public half lies beside a key that is made, as KEY.pub.

    Raises:
        PackageError: something is still to be filled in, the manifest is not usable, or the key cannot be read.
    """
    manifest = folder / MANIFEST
    text = _read(manifest).decode("utf-8", errors="replace")
    if left := [str(number) for number, line in enumerate(text.splitlines(), 1) if MARK in line and number > 1]:
        raise PackageError(f"{MANIFEST} is still to be filled in at line {', '.join(left)}.")
    digests = {name: hashlib.sha256(_read(folder / name)).hexdigest() for name in package_files(folder)}
    table = "".join(f'"{name}" = "{digest}"\n' for name, digest in digests.items())
    filled, count = re.subn(r"(?m)^(\[files\].*\n)(?:(?!\[).*\n?)*", lambda found: found[1] + table + "\n", text)
    if count != 1:
        raise PackageError(f"{MANIFEST} has no table [files] of its own.")
    private = _load_or_make(key)
    (folder / SIGNATURE).unlink(missing_ok=True)
    manifest.write_text(filled.rstrip() + "\n", encoding="utf-8")
    sign_package(folder, private, key_id)


def _values(draft: Draft) -> dict[str, str]:
    """Return what a draft fills into the template."""
    outputs = "".join(f"# {number}: {name}\n" for number, name in enumerate(draft.outputs))
    python = "\n[python]                               # the code that is to be installed wherever a worker runs\n"
    python += f'entry_point = "{MARK}: its name in the group radnode.detectors"\n'
    python += f'distribution = "{MARK}: as pip names it"\nversion = "{MARK}: the installed version"\n'
    classes = [uid for modality in draft.modalities for uid in _CLASSES.get(modality, _X_RAY)]
    return {
        "device_uid": json.dumps(f"2.25.{uuid.uuid4().int}"),
        "manufacturer": json.dumps(draft.manufacturer),
        "licence": json.dumps(draft.licence),
        "intended_use": json.dumps(draft.intended_use),
        "sop_classes": json.dumps(list(dict.fromkeys(classes))),
        "modalities": json.dumps(list(draft.modalities)),
        "channels": str(len(draft.mean)),
        "size": str(draft.size),
        "mean": json.dumps(draft.mean),
        "std": json.dumps(draft.std),
        "python": python if draft.is_code else "",
        "form": draft.form,
        "form_comment": '                       # "classes" (N, K), "map" (N, K, rows, columns), "score_and_map"',
        "channel": f"{outputs}channel = {draft.channel}                            # which of the K, from 0",
        "activation": draft.activation,
        "region": _REGION if draft.form == "map" else "",
        "source": json.dumps(draft.source),
    }


def _bundle(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """Return the TorchScript file and the metadata of a MONAI bundle."""
    try:
        if path.is_dir():
            [weights] = sorted((path / "models").glob("*.ts"))
            text = (path / "configs" / "metadata.json").read_bytes()
        else:
            weights = path
            with zipfile.ZipFile(path) as archive:
                inside = [name for name in archive.namelist() if name.endswith("/extra/metadata.json")]
                text = archive.read(inside[0])
        document = json.loads(text)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
        raise PackageError("A bundle has one TorchScript file in models and its configs/metadata.json.") from error
    if not isinstance(document, dict):
        raise PackageError("The bundle's metadata.json is no table.")
    return weights, document


def _range(value: Any) -> tuple[float, float]:
    """Return the range of values that a network takes, 0..1 where it is not said."""
    low, high = value or (0.0, 1.0)
    if not float(high) > float(low):
        raise ValueError("no range")
    return float(low), float(high)


def _number(item: tuple[str, Any]) -> int:
    return int(item[0])


def _load_or_make(path: Path) -> Ed25519PrivateKey:
    """Return the private key (PEM) in a file, a new one where there is no file."""
    if path.exists():
        try:
            found = load_pem_private_key(_read(path), password=None)
        except (ValueError, TypeError) as error:
            raise PackageError(f"{path} cannot be read as a PEM private key without a password.") from error
        if not isinstance(found, Ed25519PrivateKey):
            raise PackageError(f"{path} is not an Ed25519 key.")
        return found
    made = Ed25519PrivateKey.generate()
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        path.with_suffix(".pub").write_bytes(public)
    except OSError as error:
        raise PackageError(f"The key cannot be written to {path}: {error.strerror}.") from error
    return made


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PackageError(f"{path} cannot be read: {error.strerror}.") from error

"""Presentation contexts: what the listener accepts, by configuration, and what the SCU proposes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # imported there, and nowhere public
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, sop_class
from pynetdicom.presentation import PresentationContext

from radnode.commitment_sets import STORAGE_COMMITMENT
from radnode.errors import ConfigError

if TYPE_CHECKING:
    from radnode.settings import NetworkSettings

VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 Annex A
MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd IDs from 1 to 255
STORAGE, ALL = "storage", "all"  # the words of the configuration that stand for everything there is

_TRANSFER_SYNTAXES_NOT_SUPPORTED = 4  # PS3.8 Table 9-18
_NAMED = 3  # how many contexts a log line names
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
VERIFICATION_TRANSFER_SYNTAXES = (_EXPLICIT, _IMPLICIT)
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")  # PS3.5 section 9.1
_STANDARD = "1.2.840.10008."  # the root of every UID that the standard defines, PS3.6 Annex A

# Pixels that stay elsewhere (JPIP, PS3.5 A.6 and A.7) or on the wire (SMPTE ST 2110, PS3.22), MIME and XML, which are
# no data sets, and Papyrus, which is a folder: an object in one of these cannot be kept, so it is not accepted.
_NOT_KEPT = frozenset(
    {f"1.2.840.10008.1.2.{tail}" for tail in ("4.94", "4.95", "4.204", "4.205", "7.1", "7.2", "7.3", "6.1", "6.2")}
    | {"1.2.840.10008.1.20"}
)

# A peer that proposes several in one context is given the first of these: what every peer can encode without
# loss and what keeps the VRs comes first, then pynetdicom's order (deflated, big endian, JPEG, ... RLE), then what
# pynetdicom does not name: the JPEG processes that were retired in 2003 and the encapsulated uncompressed one.
TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    dict.fromkeys(
        uid
        for uid in (
            *(_EXPLICIT, _IMPLICIT),
            *map(str, ALL_TRANSFER_SYNTAXES),
            *(uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"),
        )
        if uid not in _NOT_KEPT
    )
)

# A DICOMDIR is for media (PS3.4 Annex I), and what has no patient (PS3.4 Annex GG) has no study to be kept under
_NO_INSTANCE_OF_A_STUDY = frozenset(
    {"1.2.840.10008.1.3.10", "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.2"}
    | {f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("200.1", "200.3", "200.7", "201.1")}
    | {f"1.2.840.10008.5.1.4.{tail}" for tail in ("38.1", "39.1", "43.1", "44.1", "45.1")}
)

# The composite storage SOP classes: those of pynetdicom, and those of pydicom's dictionary, which knows the retired
# ones that old modalities still send (ultrasound and nuclear medicine of 1993, standalone overlays and curves, ...).
STORAGE_SOP_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts) | frozenset(
    uid
    for uid, (name, kind, *_) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in name and uid not in _NO_INSTANCE_OF_A_STUDY
)

_KEYWORDS = {uid: entry[4] for uid, entry in UID_dictionary.items()} | {
    str(uid): keyword for keyword, uid in vars(sop_class).items() if isinstance(uid, sop_class.SOPClass)
}


class Contexts:
    """What the listener of one configuration accepts: SOP classes, and transfer syntaxes in order of preference.

    `analysable` are the SOP classes that a detector accepts; those and no others are offered where the policy
    `unanalysable` is "refuse". None, where nobody knows, refuses none: an image is not lost for a model's sake.

    Raises:
        ConfigError: a name is none, or nothing is left to accept.
    """

    def __init__(self, network: NetworkSettings, analysable: Collection[str] | None = None) -> None:
        self.transfer_syntaxes = _resolve(
            "network.transfer_syntaxes", network.transfer_syntaxes, {ALL: TRANSFER_SYNTAXES}, TRANSFER_SYNTAXES
        )
        sop_classes = _resolve(
            "network.sop_classes",
            network.sop_classes,
            {STORAGE: sorted(STORAGE_SOP_CLASSES)},
            STORAGE_SOP_CLASSES,
            private=True,
        )
        self.sop_classes = frozenset(sop_classes)
        if network.unanalysable == "refuse" and analysable is not None:
            self.sop_classes &= frozenset(analysable)
        if not self.sop_classes:
            raise ConfigError(
                'network.unanalysable = "refuse" leaves nothing to accept: no detector of a rule takes one of '
                "network.sop_classes."
            )
        self._verification = [build_context(VERIFICATION, list(VERIFICATION_TRANSFER_SYNTAXES))]
        self._storage = [build_context(uid, list(self.transfer_syntaxes)) for uid in sorted(self.sop_classes)]

    def supported(self, may_echo: bool, may_store: bool) -> list[PresentationContext]:
        """Return what a peer with these permissions is offered; the contexts are shared and never changed.

        What a peer may not use is left out, so that it is answered as any unsupported abstract syntax is
        (result 3, PS3.8 Table 9-18): the SCU of every vendor knows how to say that.
        """
        return (self._verification if may_echo else []) + (self._storage if may_store else [])

    @staticmethod
    def commitment(*, may_ask: bool, may_report: bool, selects_role: bool) -> list[PresentationContext]:
        """Return the context of Storage Commitment for a peer that may ask (SCU), report (SCP), both or neither.

        Where the peer selects roles it is answered which of them it has (PS3.7 section D.3.3.4). Where it does not, the
        defaults hold; a destination that reports all the same is understood.
        """
        if not (may_ask or may_report):
            return []
        context = build_context(STORAGE_COMMITMENT, list(VERIFICATION_TRANSFER_SYNTAXES))
        if selects_role:
            context.scu_role, context.scp_role = may_ask, may_report
        return [context]

    def not_accepted(self, rejected: Iterable[PresentationContext]) -> str | None:
        """Return the sentence about contexts that no peer is given; None where all that fails is a permission.

        A UID that the standard does not name is not repeated: it is the peer's own text, and could be anything.
        """
        names = dict.fromkeys(
            f"{_named(context.abstract_syntax)} in {_named(context.transfer_syntax[0])}"
            if context.result == _TRANSFER_SYNTAXES_NOT_SUPPORTED
            else _named(context.abstract_syntax)
            for context in rejected
            if context.result == _TRANSFER_SYNTAXES_NOT_SUPPORTED
            or context.abstract_syntax not in self.sop_classes | {VERIFICATION, STORAGE_COMMITMENT}
        )
        if not names:
            return None
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return (
            f"Not accepted: {', '.join(list(names)[:_NAMED])}{more}; see network.sop_classes, "
            "network.transfer_syntaxes and network.unanalysable."
        )


def keyword(uid: str) -> str:
    """Return the keyword of a UID of the standard (PS3.6 Annex A), or the UID itself where it has none."""
    return _KEYWORDS.get(uid) or uid


def _named(uid: str) -> str:
    return _KEYWORDS.get(uid) or "a private UID"


def _resolve(
    key: str,
    names: Iterable[str],
    words: Mapping[str, Iterable[str]],
    known: Iterable[str],
    *,
    private: bool = False,
) -> tuple[str, ...]:
    """Return the UIDs that `names` (keywords, UIDs, or one of `words`) stand for, each once, in their order."""
    by_name = {keyword(uid): uid for uid in known} | {uid: uid for uid in known}
    found: dict[str, None] = {}
    for name in names:
        if name in words:
            found |= dict.fromkeys(words[name])
        elif name in by_name:
            found[by_name[name]] = None
        elif private and _UID.fullmatch(name) and len(name) <= 64 and not name.startswith(_STANDARD):
            found[name] = None
        else:
            [nearest] = difflib.get_close_matches(name, [*words, *by_name], n=1, cutoff=0.0)
            raise ConfigError(f"{key}: {name!r} is none that radnode can keep; did you mean {nearest!r}?")
    return tuple(found)


def proposed(offers: Iterable[tuple[str, str]]) -> list[PresentationContext]:
    """Return one context for each different (SOP class, transfer syntax), so that nothing needs re-encoding.

    Raises:
        ValueError: over 128 different pairs; send them over several associations.
    """
    pairs = list(dict.fromkeys(offers))
    if len(pairs) > MAX_CONTEXTS:
        raise ValueError(f"one association carries at most {MAX_CONTEXTS} presentation contexts, not {len(pairs)}")
    contexts = []
    for index, (abstract_syntax, transfer_syntax) in enumerate(pairs):
        context = build_context(abstract_syntax, [transfer_syntax])
        context.context_id = 2 * index + 1
        contexts.append(context)
    return contexts

"""Presentation contexts: what the listener accepts and what the SCU proposes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext

VERIFICATION = "1.2.840.10008.1.1"  # PS3.4 Annex A
MAX_CONTEXTS = 128  # PS3.8 section 9.3.2.2: odd IDs from 1 to 255

# Pixels that stay elsewhere (JPIP, PS3.5 A.6 and A.7) or on the wire (SMPTE ST 2110, PS3.22): an object in
# one of these cannot be kept, so it is not accepted. JPIP HTJ2K Referenced is 4.204 and 4.205.
_WITHOUT_PIXELS = (
    "1.2.840.10008.1.2.4.94",
    "1.2.840.10008.1.2.4.95",
    "1.2.840.10008.1.2.4.204",
    "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.7.1",
    "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3",
)

# A peer that proposes several in one context is given the first of these: what every peer can encode without
# loss and what keeps the VRs comes first, then pynetdicom's order (deflated, big endian, JPEG, ... RLE).
_PREFERRED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
TRANSFER_SYNTAXES: tuple[str, ...] = (
    *_PREFERRED,
    *(str(uid) for uid in ALL_TRANSFER_SYNTAXES if uid not in _PREFERRED and uid not in _WITHOUT_PIXELS),
)
STORAGE_SOP_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)


@cache
def supported(may_echo: bool, may_store: bool) -> list[PresentationContext]:
    """Return what a peer with these permissions is offered; the list is shared and never changed.

    What a peer may not use is left out, so that it is answered as any unsupported abstract syntax is
    (result 3, PS3.8 Table 9-18): the SCU of every vendor knows how to say that.
    """
    contexts = [build_context(VERIFICATION, list(TRANSFER_SYNTAXES[:2]))] if may_echo else []
    if may_store:
        contexts += [build_context(uid, list(TRANSFER_SYNTAXES)) for uid in sorted(STORAGE_SOP_CLASSES)]
    return contexts


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

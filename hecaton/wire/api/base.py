"""What all bodies have in common, and where the API is."""

from __future__ import annotations

from functools import partial

import msgspec

from hecaton.core.shown import shown

API = "/v1"
"""Prefix of every route but /, /healthz and /openapi.json."""

IDEMPOTENCY_HEADER = "Idempotency-Key"

NULL = partial(msgspec.Raw, b"null")
"""The default of what may be any JSON."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Unknown fields are errors: a typo in `retires` must not silently mean no retries."""


class Reply(msgspec.Struct, frozen=True):
    """Clients ignore fields they do not know: a newer server may send more."""

    __repr__ = shown

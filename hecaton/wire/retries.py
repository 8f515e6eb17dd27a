"""HTTP bodies of what is tried again: what is to be another than it was. An empty body changes nothing."""

from __future__ import annotations

import msgspec

from hecaton.core.options import Options


class Retry(Options, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of a job: what is left out stays as it was."""


class RetryBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of the failed jobs of a batch. `file`: another handler file than before, an uploaded blob of yours."""

    file: str | None = None
    file_name: str | None = None

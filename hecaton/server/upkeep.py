"""Backup and check of the server's data, for `hecaton-server`: they work whether a server runs or not."""

from __future__ import annotations

from hecaton.store.backup import Copied, backup
from hecaton.store.inspection import Findings, inspect

__all__ = ["Copied", "Findings", "backup", "inspect"]

"""All mutants."""

from __future__ import annotations

from tests.mutants import of_blame, of_client, of_places, of_rights, of_server, of_store, of_worker

MUTANTS = (
    *of_blame.MUTANTS,
    *of_client.MUTANTS,
    *of_rights.MUTANTS,
    *of_store.MUTANTS,
    *of_server.MUTANTS,
    *of_places.MUTANTS,
    *of_worker.MUTANTS,
)

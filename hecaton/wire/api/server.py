"""HTTP bodies about the server itself."""

from __future__ import annotations

from hecaton.core.model import Role
from hecaton.wire.api.base import Reply


class About(Reply, frozen=True):
    """GET /: for whoever opens the address to see what answers there."""

    version: str
    name: str = "Hecaton"
    what: str = "A queue of jobs for machines with GPUs: submit a payload and an image, get the result."
    api: str = "/openapi.json"
    health: str = "/healthz"
    client: str = "pip install hecaton; hecaton server new --ip HOST:PORT --name NAME; hecaton server login NAME"


class Health(Reply, frozen=True):
    status: str
    version: str
    server_id: str
    time: float


class ServerInfo(Reply, frozen=True):
    """GET /v1/server: who am I here, and which limits hold."""

    version: str
    username: str
    role: Role
    max_payload: int
    max_result: int
    max_queued: int = 0  # waiting jobs that one user may have
    keep_results: float = 0.0  # seconds after a job's end, as the next two
    keep_logs: float = 0.0
    keep_jobs: float = 0.0
    default_image: str | None = None  # of jobs that name none

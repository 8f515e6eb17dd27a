"""What a handler is given: the payload and the names of the job."""

from __future__ import annotations

from hecaton.serverless.values import from_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pathlib
    from typing import Any


class ServerLessInput:
    """One job for a handler.

    `input`: the payload: a JSON file's value, other text as `str`, other bytes as `bytes`; decoded at its first use.
    `path`: the file that holds a payload of more than 1 MiB, else None: it need not be read whole.
    `job_id`, `attempt`: name this execution; the attempt rises by one whenever the job is given out again.
    `idempotency_key`: the same for all attempts of the job; for effects elsewhere that must happen once.
    """

    def __init__(
        self,
        input: Any = None,
        path: pathlib.Path | None = None,
        job_id: str = "",
        attempt: int = 1,
        idempotency_key: str = "",
    ) -> None:
        self.path = path
        self.job_id = job_id
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self._input = input
        self._kind: str | None = None  # not None: `_input` is still the raw payload, or is still in the file

    @classmethod
    def from_payload(
        cls, kind: str, raw: bytes, file: str | None, job_id: str, attempt: int, idempotency_key: str
    ) -> ServerLessInput:
        """A job as the worker sends it: `kind` json, text or bytes; the payload is `raw` or lies in `file`."""
        path = None
        if file is not None:
            import pathlib  # slow to import, and rarely needed

            path = pathlib.Path(file)
        data = cls(raw, path, job_id, attempt, idempotency_key)
        data._kind = kind
        return data

    @property
    def input(self) -> Any:
        """The payload. Raises OSError when a large payload's file cannot be read."""
        if self._kind is not None:
            raw = self._input if self.path is None else self.path.read_bytes()
            self._input = decode_payload(self._kind, raw)
            self._kind = None
        return self._input

    @input.setter
    def input(self, value: Any) -> None:
        self._input, self._kind = value, None

    def __repr__(self) -> str:
        return f"ServerLessInput(job_id={self.job_id!r}, attempt={self.attempt!r})"


def decode_payload(kind: str, raw: bytes) -> Any:
    """The value of a payload of this `kind`: json, text or bytes."""
    if kind == "bytes":
        return raw
    text = raw.decode("utf-8")
    return from_json(text) if kind == "json" else text


def kind_of_payload(raw: bytes) -> str:
    """The rule by which a payload file gets its kind: JSON if it parses, else text if it is UTF-8, else bytes."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes"
    try:
        from_json(text)
    except (ValueError, RecursionError):
        return "text"
    return "json"

"""A whole reply in one go. Used by `http`."""

from __future__ import annotations

from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

Headers = list[tuple[bytes, bytes]]


async def send_whole(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """`headers` hold the length of the body, and nothing that a user chose."""
    cycle = getattr(send, "__self__", None)
    if isinstance(cycle, RequestResponseCycle) and _is_usual(cycle):
        _answer(cycle, status, headers, body)
        return
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_usual(cycle: RequestResponseCycle) -> bool:
    """Nothing of it has been answered, the client is there and reads, and the connection is to stay open."""
    return (
        cycle.keep_alive
        and not cycle.response_started
        and not cycle.disconnected
        and not cycle.flow.write_paused
        and cycle.scope["method"] != "HEAD"
    )


def _answer(cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> None:
    """What two calls of `send` do in the usual case. uvicorn writes the head at once and the body after it: a system
    call more, and a wake-up of the client for nothing."""
    # hot: benchmarks/throughput.py - 8 % of a job
    head = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    cycle.waiting_for_100_continue = False
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join((STATUS_LINE[status], *head, b"\r\n", body)))
    cycle.message_event.set()
    cycle.on_response()

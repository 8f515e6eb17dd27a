"""How frames of the workers' connection come in: uvicorn's protocol for WebSockets, which by itself stops reading with
each frame and goes on when that is taken. Used by `app`."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

AHEAD = 2
"""Frames that wait for their reader before the connection is read no further."""


class Reading(WebSocketsSansIOProtocol):
    # hot: benchmarks/growth.py - a frame is taken in the turn in which it comes: stopping and going on for each is a
    # system call more, and the loop's own work for it

    def send_receive_event_to_app(self) -> None:
        paused = self.read_paused
        self.read_paused = True  # so that it does not stop here
        super().send_receive_event_to_app()
        if not paused:
            self.read_paused = self.queue.qsize() >= AHEAD
            if self.read_paused:
                self.transport.pause_reading()

"""Bytes into the types of messages. Of JSON from any thread."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_one_at_a_time = threading.Lock()


def decode(data: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError.

    msgspec learns a type when it is decoded for the first time, and shows it to other threads half learnt: two threads
    that do so at once crashed the process (one in four starts of eight threads)."""
    decoder = _decoders.get(kind)
    if decoder is None:
        with _one_at_a_time:
            decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    found: T = decoder.decode(data)
    return found


def decoded(decoder: msgspec.msgpack.Decoder[T], frame: bytes | msgspec.Raw) -> T:
    """Raises msgspec.DecodeError, whatever is wrong."""
    try:
        return decoder.decode(frame)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"the frame is malformed: {error}") from None

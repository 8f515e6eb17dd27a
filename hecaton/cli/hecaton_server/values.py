"""Kinds of values that the server's options have: as they are typed, and as they are kept."""

from __future__ import annotations

import ipaddress

import click

from hecaton.core.errors import BadRequest
from hecaton.wire.api import API
from hecaton.wire.reach.address import is_prefix, parse


class Network(click.ParamType[str]):
    """An address, or a network such as 10.0.0.0/8. Stays the text that it is."""

    name = "network"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            self.fail(f"{value!r} is neither an address nor a network (10.0.0.7, 10.0.0.0/8)", param, ctx)
        return value


class RootPath(click.ParamType[str]):
    """Such as /hecaton."""

    name = "path"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = f"/{value.strip('/')}"  # with a slash before and none behind, however it is typed
        if path == "/" or not is_prefix(path) or f"{path}/".startswith(f"{API}/"):
            self.fail(f"{value!r} is no path that the server can be below (/hecaton, /gpu/hecaton)", param, ctx)
        return path


class Listening(click.ParamType[str]):
    """An address of this machine with a port; a port alone is one of 127.0.0.1. Stays text."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        written = f"127.0.0.1:{value}" if value.isdigit() else value
        try:
            whole = parse(written).authority == written.lower()
        except BadRequest:
            whole = False
        if not whole:
            self.fail(f"{value!r} is no HOST:PORT (9181, 127.0.0.1:9181, [::1]:9181)", param, ctx)
        return written


def is_loopback(authority: str) -> bool:
    """Whether only this machine gets there."""
    host = parse(authority).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

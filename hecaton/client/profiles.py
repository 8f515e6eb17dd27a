"""The servers this user knows, with their tokens: `<HECATON_HOME>/client/servers.json`. For the CLI and
`Client.from_profile`.

Every change is made under a lock and replaces the file as a whole, so that two commands at once lose nothing and a
crash leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from hecaton.client.shared_file import locked, private_folder, read, replace
from hecaton.core.errors import BadRequest, Conflict, NotFound
from hecaton.wire.decoding import decode
from hecaton.wire.home import home
from hecaton.wire.reach.address import parse
from hecaton.wire.reach.tls import fingerprint


class Profile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A server under the name that this user gave it.

    `scheme` is what was found at the address ("http", "https"); None: nobody has answered there yet.
    """

    name: str
    address: str  # as it was written
    scheme: str | None = None
    ca_file: str | None = None  # absolute path
    username: str | None = None
    token: str | None = None

    @property
    def url(self) -> str:
        """What to connect to: the address as written while its scheme is unknown."""
        place = parse(self.address)
        scheme = place.scheme or self.scheme
        return place.url(scheme) if scheme else self.address


class _File(msgspec.Struct, omit_defaults=True):
    servers: list[Profile] = []
    active: str | None = None

    def find(self, name: str) -> Profile:
        for profile in self.servers:
            if profile.name == name:
                return profile
        names = [profile.name for profile in self.servers]
        close = difflib.get_close_matches(name, names, 1)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise NotFound(
            f"no server named {name!r} is registered here",
            f"{meant}Known: {', '.join(names)}."
            if names
            else "Register one: hecaton server new --ip HOST:8181 --name NAME.",
        )


def all_servers() -> list[Profile]:
    """In the order in which they were added."""
    return _read().servers


def get(name: str) -> Profile:
    """Raises NotFound, with the names that are known."""
    return _read().find(name)


def at(address: str) -> Profile:
    """The server that is registered with this address; if none is, one that is not kept, with the address as its
    name. BadRequest for what is no address."""
    place = parse(address)
    for profile in all_servers():
        known = parse(profile.address)
        same = (known.host, known.port, known.prefix) == (place.host, place.port, place.prefix)
        if same and place.scheme in (None, known.scheme, profile.scheme):
            return profile
    return Profile(address, address)


def active() -> Profile | None:
    """The server that commands mean when they name none."""
    file = _read()
    return file.find(file.active) if file.active else None


def add(profile: Profile) -> None:
    """Raises Conflict when the name is taken and BadRequest when it or the address makes no sense."""
    _check(profile)
    with _changing() as file:
        if any(known.name == profile.name for known in file.servers):
            raise Conflict(
                f"a server named {profile.name!r} is registered already",
                f"Choose another name, or change it: hecaton server update {profile.name} --ip ADDRESS.",
            )
        file.servers.append(profile)


def put(profile: Profile) -> None:
    """In the place of one of that name, if there is one: at no moment there is none. BadRequest as for `add`."""
    _check(profile)
    with _changing() as file:
        file.servers = [known for known in file.servers if known.name != profile.name] + [profile]


def _check(profile: Profile) -> None:
    if (
        not profile.name
        or not profile.name.isprintable()
        or profile.name != profile.name.strip()
        or ":" in profile.name
    ):
        raise BadRequest(f"{profile.name!r} is no name for a server", "Choose a short word, for example my-server.")
    parse(profile.address)


def remove(name: str) -> None:
    with _changing() as file:
        file.servers.remove(file.find(name))
        if file.active == name:
            file.active = None


def set_active(name: str | None) -> None:
    """None: no server is active."""
    with _changing() as file:
        file.active = file.find(name).name if name is not None else None


def set_token(name: str, token: str | None, username: str | None = None) -> None:
    """None: forget the token."""
    _replace(name, token=token, username=username)


def keep_certificate(certificate: str) -> str:
    """The file with a certificate (PEM) that pins a server, for `ca_file`. BadRequest if it cannot be kept."""
    path = _path().with_name("certificates") / f"{fingerprint(certificate).partition(':')[2]}.pem"
    try:
        private_folder(path.parent.parent)
        private_folder(path.parent)
        with locked(path.with_suffix(".lock")):
            replace(path, certificate.encode())
    except OSError as error:
        raise _unusable(path, error) from error
    return str(path)


def set_scheme(name: str, scheme: str) -> None:
    """Remember what answers there, so that "https" never becomes "http" again."""
    _replace(name, scheme=scheme)


def update(name: str, *, address: str | None = None, ca_file: str | None = None) -> Profile:
    """Change what is given. Another address is another server: its scheme and token are forgotten."""
    old = get(name)
    changes: dict[str, str | None] = {}
    if address is not None and address != old.address:
        parse(address)
        changes = {"address": address, "scheme": None, "token": None, "username": None}
    if ca_file is not None:
        changes["ca_file"] = ca_file
    return _replace(name, **changes)


def _replace(name: str, **changes: str | None) -> Profile:
    with _changing() as file:
        old = file.find(name)
        new = msgspec.structs.replace(old, **changes)
        file.servers[file.servers.index(old)] = new
    return new


def _path() -> Path:
    return home() / "client" / "servers.json"


def _read() -> _File:
    path = _path()
    try:
        return decode(read(path), _File)
    except FileNotFoundError:
        return _File()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"the list of servers in {path} cannot be read: {error}",
            "Repair it, or move it away and register the servers again.",
        ) from error
    except OSError as error:
        raise _unusable(path, error) from error


@contextlib.contextmanager
def _changing() -> Iterator[_File]:
    """The file as it is, written back at the end of the block unless the block raises."""
    path = _path()
    with contextlib.ExitStack() as held:
        try:
            private_folder(path.parent)
            # The lock is a file of its own: the list itself is replaced, and a lock on it would be replaced with it.
            held.enter_context(locked(path.with_suffix(".lock")))
        except OSError as error:
            raise _unusable(path, error) from error
        file = _read()
        yield file
        try:
            replace(path, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
        except OSError as error:
            raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> BadRequest:
    return BadRequest(
        f"cannot use {error.filename or path}: {error.strerror}",
        "The list of servers is kept there; HECATON_HOME names another folder.",
    )

"""Who this worker is: a login is exchanged once for a worker id and a token, kept in `<home>/worker/<name>/`.

The login itself is never stored; the scheme and the CA of the server are.
"""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from hecaton.core.errors import BadRequest, Conflict, HecatonError, NotFound, Unreachable
from hecaton.wire import api
from hecaton.wire.api import Enrolment
from hecaton.wire.errors import from_reply, said_by_a_server
from hecaton.wire.home import ENVIRONMENT, SERVICE_HOME, home
from hecaton.wire.reach import address, proxies, tls

_CONFIG = "worker.json"
_CA = "ca.pem"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_TIMEOUT = 30.0

T = TypeVar("T")


class WorkerConfig(msgspec.Struct, frozen=True):
    """A registered worker. `url`: with the scheme that was found at registration. `ca_file`: a copy in `folder`."""

    name: str
    url: str
    worker_id: str
    token: str
    folder: Path
    ca_file: Path | None = None


class _Membership(msgspec.Struct, frozen=True):
    url: str
    worker_id: str
    token: str
    own_ca: bool


def worker_home() -> Path:
    """Root's worker, a service or by hand, has the folder of services unless HECATON_HOME says otherwise."""
    if os.environ.get(ENVIRONMENT) or os.geteuid() != 0:
        return home()
    return SERVICE_HOME


def default_name() -> str:
    """The host's name, cut to what a server takes."""
    return re.sub(r"[^A-Za-z0-9_.@-]", "-", socket.gethostname())[:64].lstrip(".-") or "worker"


def folder_of(name: str, home: Path | None = None) -> Path:
    """Where the worker of this name keeps its state; it need not exist. `home`: other than that of this process.
    BadRequest for what is no name."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is not a name for a worker",
            "Use letters, digits, '.', '_', '@' and '-', at most 64, beginning with a letter or digit.",
        )
    return (home or worker_home()) / "worker" / name


def load(name: str) -> WorkerConfig | None:
    """The worker registered under this name on this machine; None: there is none."""
    folder = folder_of(name)
    path = folder / _CONFIG
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Membership)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HecatonError(
            f"cannot read {path}: {error.strerror}",
            f"Run as the user whose worker it is (root for the service), or set {ENVIRONMENT}.",
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            f"{path} is damaged: {error}",
            f"Remove it, remove the worker on the server (hecaton worker remove {name}), and register it again.",
        ) from error
    ca_file = folder / _CA if stored.own_ca else None
    return WorkerConfig(name, stored.url, stored.worker_id, stored.token, folder, ca_file)


def matches(config: WorkerConfig, server: str) -> bool:
    """Whether an address, as people write it, means the server that the worker is registered with."""
    place, known = address.parse(server), address.parse(config.url)
    same = (place.host, place.port, place.prefix) == (known.host, known.port, known.prefix)
    return same and place.scheme in (None, known.scheme)


def register(
    server: address.Address,
    name: str,
    *,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
    key: str | None = None,
    ca_file: Path | None = None,
) -> WorkerConfig:
    """Make a worker of this name at the server and keep its credentials.

    Needs a username with its password, or a user's access token; the role must be admin or worker. Or a key to enrol.
    Raises Conflict when
    the name is taken, and whatever the server says."""
    folder = folder_of(name)
    if ca_file is None and os.environ.get(tls.CA_ENVIRONMENT):
        ca_file = Path(os.environ[tls.CA_ENVIRONMENT])
    if token is None and key is None:
        login = api.Login(username or "", password or "")
        token = _post(server, ca_file, "/login", login, api.Token).token
    _private_folder(folder)  # before the server makes a worker that nobody could keep
    try:
        if key is not None:
            made = _post(server, ca_file, "/enrol", Enrolment(key, name), api.WorkerCredentials)
        else:
            made = _post(server, ca_file, "/workers", api.NewWorker(name), api.WorkerCredentials, token)
    except Conflict as error:
        raise Conflict(
            f"the server has a worker named {name!r} already",
            f"Choose another name with --name, or remove that one if it is not in use: hecaton worker remove {name}",
        ) from error
    own_ca = ca_file is not None and server.scheme == "https"
    if ca_file is not None and own_ca:
        _write(folder / _CA, ca_file.read_bytes())
    _write(folder / _CONFIG, msgspec.json.encode(_Membership(server.url, made.id, made.token, own_ca)))
    return WorkerConfig(name, server.url, made.id, made.token, folder, folder / _CA if own_ca else None)


def keep_certificate(name: str, certificate: str) -> Path:
    """The file with the certificate (PEM) that pins the server of the worker of this name, for `register`."""
    path = folder_of(name) / _CA
    _private_folder(path.parent)
    _write(path, certificate.encode())
    return path


def still_known(config: WorkerConfig) -> bool:
    """False when the server says that it does not know this worker's token; True also when it says nothing."""
    server = address.Address(config.url, config.url.partition(":")[0])
    nothing = f"{api.API}/worker/jobs/{'0' * 36}/blobs/{'0' * 64}"  # a worker's route: a token that holds finds nothing
    try:
        status, said = _exchange(
            "GET", server, config.ca_file, nothing, None, {"Authorization": f"Bearer {config.token}"}
        )
    except Unreachable:
        return True
    return status != http.HTTPStatus.UNAUTHORIZED or not said_by_a_server(said)  # a proxy may want a login, too


def registered() -> list[str]:
    """Names of the workers that are registered on this machine."""
    return sorted(path.parent.name for path in (worker_home() / "worker").glob(f"*/{_CONFIG}"))


@contextmanager
def exclusive(config: WorkerConfig) -> Iterator[None]:
    """Keeps a second process from being the same worker. Conflict when one runs."""
    with (config.folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Conflict(
                f"the worker {config.name!r} runs on this machine already (process {lock.read().strip() or 'unknown'})",
                "See `hecaton-gpu status`. A second worker on one machine needs a name of its own: --name",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def forget(name: str) -> None:
    """Remove the credentials; what else is in the folder goes with the next worker of this name. NotFound if none."""
    try:
        (folder_of(name) / _CONFIG).unlink()
    except FileNotFoundError:
        raise NotFound(f"no worker named {name!r} is registered on this machine") from None


def _post(
    server: address.Address, ca_file: Path | None, path: str, body: object, reply: type[T], token: str | None = None
) -> T:
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    status, data = _exchange("POST", server, ca_file, api.API + path, msgspec.json.encode(body), headers)
    if status >= 400:
        raise from_reply(status, data)
    try:
        return msgspec.json.decode(data, type=reply)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreachable(
            f"what answers at {server.url} is not a Hecaton server", "Check the address and any proxy in between."
        ) from None


def _exchange(
    method: str, server: address.Address, ca_file: Path | None, path: str, body: bytes | None, headers: dict[str, str]
) -> tuple[int, bytes]:
    place, proxy = address.parse(server.url), proxies.proxy_for(server.url)
    where, path = place.authority, place.prefix + path
    if server.scheme == "https":
        context = tls.context(ca_file)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            place.host, place.port, timeout=_TIMEOUT, context=context
        )
    elif proxy is None:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=_TIMEOUT)
    else:
        connection = http.client.HTTPConnection(proxy.host, proxy.port, timeout=_TIMEOUT)
        path, headers = f"http://{where}{path}", {**headers, **proxy.headers}
    try:
        if proxy is not None and server.scheme == "https":
            connection.sock = _tunnel(place, proxy, context)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ssl.SSLError as error:
        raise address.explain(error, place, ca_file) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        way, hint = ("", "Is hecaton-server running there, and is the port right?")
        if proxy is not None:
            way, hint = f" by way of {proxy}", proxies.AROUND
        raise Unreachable(f"no Hecaton server answers at {where}{way}: {reason}", hint) from error
    finally:
        connection.close()


def _tunnel(place: address.Place, proxy: proxies.Proxy, context: ssl.SSLContext) -> ssl.SSLSocket:
    """http.client's own forgets the brackets of IPv6 (Python 3.11)."""
    connection = socket.create_connection((proxy.host, proxy.port), _TIMEOUT)
    try:
        if not address.opened(connection, place, proxy):
            raise OSError("it refuses to connect")
        return context.wrap_socket(connection, server_hostname=place.host.partition("%")[0])
    except BaseException:
        connection.close()
        raise


def _private_folder(folder: Path) -> None:
    try:
        for path in (folder.parent.parent, folder.parent, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise HecatonError(
            f"cannot make the folder {folder}: {error.strerror}", f"{ENVIRONMENT} names the folder to use instead."
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Replace the file as a whole, readable for its owner only."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(unfinished, path)
    except OSError:
        os.unlink(unfinished)
        raise


__all__ = [
    "WorkerConfig",
    "default_name",
    "exclusive",
    "folder_of",
    "forget",
    "keep_certificate",
    "load",
    "matches",
    "register",
    "registered",
    "still_known",
    "worker_home",
]

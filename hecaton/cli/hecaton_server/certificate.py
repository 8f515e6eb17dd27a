"""The server's own certificate: made once, signed by itself, and trusted by its fingerprint."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

LIFE_DAYS = 3650
"""Nobody renews it: who knows its fingerprint would have to be told of another one."""

_BEFORE = datetime.timedelta(days=1)
"""It holds a little longer already: clocks differ."""


def own_certificate(folder: Path, names: Iterable[str]) -> tuple[Path, Path]:
    """Files (PEM) of certificate and private key in `folder`, made where there are none. `names`: host names and
    addresses of this machine, for programs that look at them; ours go by the certificate itself. What no certificate
    can name is left out."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    if not (certificate.exists() and key.exists()):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made, secret = _made(set(names))
        _write(key, secret, 0o600)
        _write(certificate, made, 0o644)
    return certificate, key


def _made(names: set[str]) -> tuple[bytes, bytes]:
    """May sign no other certificate: who trusts it trusts this server alone (`wire.tls`)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hecaton")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEFORE)
        .not_valid_after(now + datetime.timedelta(days=LIFE_DAYS))
        .add_extension(x509.SubjectAlternativeName(_general(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _general(names: set[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    found: list[x509.GeneralName] = []
    for name in sorted(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            with contextlib.suppress(UnicodeError):  # no host name: a machine may be called anything
                found.append(x509.DNSName(name.encode("idna").decode()))
    return found


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())

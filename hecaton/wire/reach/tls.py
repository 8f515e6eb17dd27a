"""Whom a connection trusts, and what to tell people when it does not. For client and worker."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl

from hecaton.core.errors import BadRequest, Unreachable

CA_ENVIRONMENT = "HECATON_CA_FILE"

_TRUST_HINT = (
    "If it is your own server, name the certificate (or the CA that signed it): "
    "`hecaton server new --ip {where} --name NAME --ca-file CERT.pem`, or set HECATON_CA_FILE=CERT.pem."
)

# X509_V_ERR_* of OpenSSL.
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED = frozenset({18, 19})
_UNKNOWN_ISSUER = frozenset({2, 20, 21})
_OTHER_NAME = frozenset({62, 64})


class Untrusted(Unreachable):
    """Somebody answered, and must not be talked to: trying again changes nothing."""


class SelfSigned(Untrusted):
    """By a certificate that nobody but itself vouches for, where none has been seen before."""


def context(ca_file: str | os.PathLike[str] | None = None) -> ssl.SSLContext:
    """What a client of ours trusts: `ca_file`, else the file named by HECATON_CA_FILE, else the system's CAs.

    A given file replaces the system's CAs. It may hold CAs or the server's own certificate. One that may sign no other
    pins the server: it is that one, by whichever name or address it is reached.
    Raises BadRequest when the file cannot be used.
    """
    chosen = ca_file_of(ca_file)
    if not chosen:
        return ssl.create_default_context()
    try:
        made = ssl.create_default_context(cafile=os.fspath(chosen))
    except ssl.SSLError as error:
        raise BadRequest(
            f"the CA file {chosen} holds no certificate in PEM form", "It starts with -----BEGIN CERTIFICATE-----."
        ) from error
    except OSError as error:
        raise BadRequest(
            f"cannot read the CA file {chosen}: {error.strerror}", f"Check --ca-file and {CA_ENVIRONMENT}."
        ) from error
    # Home-made certificates: the file may be the leaf itself, and rarely has every extension that RFC 5280 asks for.
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not made.cert_store_stats()["x509_ca"]:
        made.check_hostname = False
    return made


def ca_file_of(ca_file: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Which file says whom to trust; None: the system does."""
    return ca_file or os.environ.get(CA_ENVIRONMENT) or None


def is_pin(certificate: str) -> bool:
    """Whether a certificate (PEM) may sign no other, so that who trusts it trusts one server."""
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alone.load_verify_locations(cadata=certificate)
    return not alone.cert_store_stats()["x509_ca"]


def fingerprint(certificate: str) -> str:
    """Of a certificate (PEM), as people compare it: SHA256:... in base64, with '-' and '_'."""
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).digest()
    return "SHA256:" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def explain(error: ssl.SSLError, where: str, ca_file: str | os.PathLike[str] | None = None) -> Unreachable:
    """A refused or broken TLS connection to `where` (host:port), in words that say what to do. `ca_file`: as `context`
    had it.

    Untrusted, unless it may pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, where, ca_file_of(ca_file))
    if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return Untrusted(
            f"the server at {where} does not speak TLS",
            f"It may serve plain HTTP: write http://{where} if that is meant, or start it with --ssl-keyfile and "
            "--ssl-certfile.",
        )
    return Unreachable(
        f"the TLS handshake with {where} failed: {error.reason or error}",
        "The server may want other TLS versions, or something in between interferes.",
    )


def introduced(error: SelfSigned, where: str, certificate: str) -> SelfSigned:
    """With the fingerprint of the certificate (PEM) that is shown, and how it comes to be known."""
    hint = error.hint
    if is_pin(certificate):
        hint = (
            "If hecaton-server there prints the same: `hecaton join LINE` with a line of its `hecaton up`, "
            f"`hecaton server new --ip {where} --name NAME`, or HECATON_CA_FILE=CERT.pem."
        )
    return SelfSigned(f"{error.message}: {fingerprint(certificate)}", hint)


def _explain_certificate(
    error: ssl.SSLCertVerificationError, where: str, ca_file: str | os.PathLike[str] | None
) -> Untrusted:
    code = error.verify_code
    if ca_file is not None and code in _SELF_SIGNED | _UNKNOWN_ISSUER:
        return _explain_change(where, ca_file)
    if code in _SELF_SIGNED:
        return SelfSigned(
            f"the certificate of {where} is self-signed and not known here", _TRUST_HINT.format(where=where)
        )
    if code in _UNKNOWN_ISSUER:
        return Untrusted(
            f"the certificate of {where} was signed by a CA that is not known here", _TRUST_HINT.format(where=where)
        )
    if code in _OTHER_NAME:
        return Untrusted(
            f"the certificate of {where} was made for another name: {error.verify_message}",
            "Use the address that is in the certificate, or make one that lists this address as a "
            "subjectAltName (DNS:name or IP:address).",
        )
    if code == _EXPIRED:
        return Untrusted(
            f"the certificate of {where} has expired, or the clock of this machine is wrong",
            "Check `date`; then renew the certificate of the server.",
        )
    if code == _NOT_YET_VALID:
        return Untrusted(
            f"the certificate of {where} is not valid yet, or the clock of this machine is wrong", "Check `date`."
        )
    return Untrusted(
        f"the certificate of {where} is not trusted: {error.verify_message}", _TRUST_HINT.format(where=where)
    )


def _explain_change(where: str, ca_file: str | os.PathLike[str]) -> Untrusted:
    if context(ca_file).check_hostname:
        return Untrusted(
            f"the certificate of {where} is neither in {os.fspath(ca_file)} nor signed by one that is there",
            "Name the certificate of the server, or of who signed it: --ca-file, HECATON_CA_FILE.",
        )
    with open(ca_file, encoding="ascii") as file:
        known = fingerprint(file.read())
    return Untrusted(
        f"the certificate of {where} has changed: it is not the one that is known here ({known})",
        "The server has a new one, or somebody in between answers in its place. Ask whoever runs it for the "
        "fingerprint before you trust it: hecaton server remove NAME, then join it or register it again.",
    )

"""TLS for DICOM: contexts by the profiles of PS3.15 annex B.

Standard: PS3.15 B.9 (BCP 195 TLS), B.12 (modified BCP 195).
"""

from __future__ import annotations

import ssl
from pathlib import Path

from hilum.errors import ConfigurationError

__all__ = ["CIPHERS", "client_context", "server_context"]

# RFC 9325 4.2: TLS 1.2 with forward secrecy and authenticated encryption; TLS 1.3 as it is.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:"
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""Of TLS 1.2, as OpenSSL names them."""


def server_context(
    certificate: Path,
    key: Path | None = None,
    *,
    client_ca: Path | None = None,
    require_client_certificate: bool = True,
) -> ssl.SSLContext:
    """For a listener.

    Args:
        certificate: PEM file with our certificate and its chain.
        key: PEM file with the private key; None where ``certificate`` holds it.
        client_ca: PEM file with the authorities of client certificates; None asks for none.
        require_client_certificate: with ``client_ca``: refuse clients that show none.

    Raises:
        ConfigurationError: a file cannot be read or does not fit.
    """
    context = _new(ssl.PROTOCOL_TLS_SERVER)
    _load(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca)
        required = ssl.CERT_REQUIRED if require_client_certificate else ssl.CERT_OPTIONAL
        context.verify_mode = required
    return context


def client_context(
    *,
    ca: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    check_hostname: bool = True,
    verify: bool = True,
) -> ssl.SSLContext:
    """For an association that we open.

    Args:
        ca: PEM file with the authorities trusted; None takes the system's.
        certificate: PEM file with our own certificate, where the peer asks for one.
        key: its private key; None where ``certificate`` holds it.
        check_hostname: whether the certificate must name the host connected to.
        verify: False accepts any certificate: encryption without knowing to whom.

    Raises:
        ConfigurationError: a file cannot be read or does not fit.
    """
    context = _new(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = check_hostname and verify
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    elif ca is not None:
        _trust(context, ca)
    else:
        context.load_default_certs()
    if certificate is not None:
        _load(context, certificate, key)
    return context


def _new(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    # Compression and renegotiation have both been attacked and are of no use here.
    context.options |= ssl.OP_NO_COMPRESSION | getattr(ssl, "OP_NO_RENEGOTIATION", 0)
    return context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        with_key = f" with key {key}" if key is not None else ""
        raise ConfigurationError(f"certificate {certificate}{with_key}: {_why(error)}") from error


def _trust(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"certificate authorities {ca}: {_why(error)}") from error


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        known = {"NO_CERTIFICATE_OR_CRL_FOUND": "no certificate in PEM", "PEM_LIB": "no PEM file"}
        reason = error.reason or str(error)
        return known.get(reason, reason.replace("_", " ").lower())
    return (error.strerror or str(error)).lower()

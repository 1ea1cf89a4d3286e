"""TLS at the doors: a certificate, its key, and whose certificates senders must show."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from telemetry.errors import UsageError


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files."""

    certificate: Path
    """The chain, the server's own certificate first."""
    key: Path
    """Without a passphrase."""
    client_ca: Path | None = None
    """Who signs the certificates that senders must show. None means that they need none."""

    def context(self, *, senders: bool) -> ssl.SSLContext:
        """For HTTP.

        Args:
            senders: whether this door is for senders, who must show a certificate where `client_ca` says so.

        Raises:
            UsageError: a file cannot be read, or the key is not that of the certificate.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise UsageError(f"cannot use {self.certificate} with {self.key}: {error}") from error
        if senders and self.client_ca:
            try:
                context.load_verify_locations(self.client_ca)
            except OSError as error:
                raise UsageError(f"cannot use {self.client_ca}: {error}") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> Any:
        """For gRPC.

        Raises:
            UsageError: as `context`.
        """
        self.context(senders=True)  # gRPC would only log what is wrong with the files
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=self.client_ca.read_bytes() if self.client_ca else None,
            require_client_auth=self.client_ca is not None,
        )


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase; give a key without one, readable by the server alone")

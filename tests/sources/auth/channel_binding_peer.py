"""An HTTPS server that logs connections on by GSSAPI and tells whether they are bound to its certificate.

A program of its own, for a Python that has gssapi: CERTIFICATE-WITH-KEY HASH PORT. NTLM is gss-ntlmssp's, Negotiate is
MIT Kerberos's, and they check the bindings. It answers 200 to whoever is logged on and bound, 403 to whoever is not
bound, else 401.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MECHANISMS = {"NTLM": "1.3.6.1.4.1.311.2.2.10", "Negotiate": "1.2.840.113554.1.2.2"}
CHANNEL_BOUND = 2048
"""GSS_C_CHANNEL_BOUND_FLAG of MIT Kerberos."""

gssapi: Any = importlib.import_module("gssapi")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    bindings: Any = None
    context: Any = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, token = self.judge()
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", "Negotiate")
            self.send_header("WWW-Authenticate", f"NTLM {base64.b64encode(token).decode()}" if token else "NTLM")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def judge(self) -> tuple[int, bytes]:
        scheme, _, text = self.headers.get("Authorization", "").partition(" ")
        if scheme not in MECHANISMS:
            return (200 if self.context is not None and self.context.complete else 401), b""
        message = base64.b64decode(text)
        if scheme == "Negotiate" or message[8] == 1:
            mech = gssapi.OID.from_int_seq(MECHANISMS[scheme])
            credentials = gssapi.Credentials(usage="accept", mechs=[mech])
            self.context = gssapi.SecurityContext(creds=credentials, usage="accept", channel_bindings=self.bindings)
        try:
            token = self.context.step(message)
        except gssapi.exceptions.GSSError as error:
            self.context = None
            print(error, file=sys.stderr, flush=True)  # noqa: T201 - the test shows it
            return 401, b""
        if not self.context.complete:
            return 401, token
        return (200 if int(self.context.actual_flags) & CHANNEL_BOUND else 403), b""

    def log_message(self, *_arguments: object) -> None:
        pass


def main() -> None:
    certificate, algorithm, port = sys.argv[1:]
    pem = Path(certificate).read_text().partition("-----BEGIN PRIVATE")[0]
    digest = hashlib.new(algorithm, ssl.PEM_cert_to_DER_cert(pem)).digest()
    Handler.bindings = gssapi.raw.ChannelBindings(application_data=b"tls-server-end-point:" + digest)
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


if __name__ == "__main__":
    main()

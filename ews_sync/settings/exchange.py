"""The Exchange server: where it is, how to log in, and what its certificate must be like."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import SecretStr

from ews_sync.settings.addresses import at_port, checked_url, is_host
from ews_sync.settings.options import variable_for
from ews_sync.settings.problems import not_allowed, reason, shown

if TYPE_CHECKING:
    from ews_sync.settings.config_file import Tree
    from ews_sync.settings.keys import ConfigKeys

PATH = "/EWS/Exchange.asmx"
_SECRET = "auth_oauth_client_secret"  # noqa: S105 - a key's name
_PRIVATE_KEY = "auth_oauth_client_credential_private_key"
_THUMBPRINT = "auth_oauth_client_credential_thumbprint"
_CERTIFICATE = "auth_oauth_client_credential_certificate"
NO_TENANT = frozenset({"common", "organizations", "consumers"})
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


class AccessType(StrEnum):
    """By what right mailboxes are opened: shared with the user, or acting as their owner."""

    DELEGATE = "delegate"
    IMPERSONATION = "impersonation"


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """User and password, in the clear under TLS."""

    kind: ClassVar[str] = "basic"
    user: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class NtlmAuth:
    r"""`DOMAIN\user`, `user@domain` or `user`, and the password."""

    kind: ClassVar[str] = "ntlm"
    user: str
    password: SecretStr


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """An OAuth 2 client's secret."""

    secret: SecretStr


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """An OAuth 2 client's private key (PEM) and its certificate: the thumbprint (hexadecimal), the PEM, or both."""

    private_key: SecretStr
    thumbprint: str | None = None
    certificate: str | None = None


@dataclass(frozen=True, slots=True)
class OAuth2:
    """The OAuth 2 client credentials flow. `authority` is https, with a path, without a "/" at the end."""

    kind: ClassVar[str] = "oauth2"
    authority: str
    client_id: str
    credential: ClientSecret | ClientCertificate


@dataclass(frozen=True, slots=True)
class KerberosAuth:
    """Kerberos, from the ticket cache or a keytab. `user` is None where the process's own tickets are meant."""

    kind: ClassVar[str] = "kerberos"
    user: str | None = None


Auth = BasicAuth | NtlmAuth | OAuth2 | KerberosAuth
"""A way to log in; `kind` is the config's `auth_type`."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An Exchange server. `ssl_ca_bundle` and `ssl_ciphers` are None where the system's own apply."""

    endpoint: str
    auth: Auth
    access_type: AccessType = AccessType.DELEGATE
    ssl_verify: bool = True
    ssl_ca_bundle: Path | None = None
    ssl_ciphers: str | None = None


def exchange_from(config: ConfigKeys, tree: Tree) -> Exchange | None:
    """Put the server together; None when there are problems, which are then in `tree`."""
    endpoint = _endpoint(config, tree)
    auth = _auth(config, tree)
    bundle = _ca_bundle(config, tree)
    _check_ciphers(config, tree)
    if endpoint is None or auth is None:
        return None
    return Exchange(
        endpoint,
        auth,
        AccessType(config.access_type),
        config.ews_ssl_verify,
        bundle,
        config.ews_ssl_ciphers,
    )


# --- Where it is -----------------------------------------------------------------------------------------------------


def _endpoint(config: ConfigKeys, tree: Tree) -> str | None:
    given = [key for key in ("ews_endpoint", "host") if tree.has(key)]
    if len(given) == 2:
        tree.complain(("host",), "cannot be given together with ews_endpoint: keep one of the two")
        return None
    if not given:
        if not tree.is_bad("host"):
            example = "https://mail.example.com" + PATH
            tree.complain(("ews_endpoint",), f'missing: give ews_endpoint, such as "{example}", or host and port')
        return None
    if tree.is_bad(given[0]) or tree.is_bad("port"):
        return None
    try:
        return _whole_address(config, tree) if config.ews_endpoint else _from_host(config.host or "", config, tree)
    except ValueError as error:
        tree.complain((given[0],), str(error))
        return None


def _whole_address(config: ConfigKeys, tree: Tree) -> str:
    kind = f'the whole address of Exchange Web Services, such as "https://mail.example.com{PATH}"'
    text = config.ews_endpoint or ""
    url = checked_url(text, kind)
    if url.path in {"", "/"}:
        raise ValueError(not_allowed(kind, text))
    if tree.has("port") and config.port != (url.port or (443 if url.scheme == "https" else 80)):
        tree.complain(("port",), "does nothing beside ews_endpoint: put the port into that address, or remove it")
    return text


def _from_host(host: str, config: ConfigKeys, tree: Tree) -> str:
    kind = 'a host, such as "mail.example.com" or "https://mail.example.com"'
    port = config.port
    if "://" not in host:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if is_host(bare) and (":" not in bare or bare.count(":") > 1):
            return at_port(bare, port, "https" if port == 443 else "http") + PATH
        name, separator, number = host.rpartition(":")
        if separator and is_host(name) and number.isdecimal():
            raise ValueError(f"must be {kind}, not {shown(host)}: the port has a key of its own, port")
        raise ValueError(not_allowed(kind, host))
    url = checked_url(host, kind)
    if url.path not in {"", "/"}:
        raise ValueError(f"must be {kind}, not {shown(host)}: for a whole address there is ews_endpoint")
    if url.port is not None:
        if tree.has("port") and port != url.port:
            raise ValueError(f"says port {url.port}, but port is {port}: keep one of the two")
        port = url.port
    return at_port(url.hostname or "", port, url.scheme) + PATH


# --- How to log in ---------------------------------------------------------------------------------------------------


def _auth(config: ConfigKeys, tree: Tree) -> Auth | None:
    match config.auth_type:
        case "basic" | "ntlm":
            _need(config, tree, "auth_user")
            _need(config, tree, "auth_password")
            if not config.auth_user or not config.auth_password:
                return None
            kind = BasicAuth if config.auth_type == "basic" else NtlmAuth
            return kind(config.auth_user, config.auth_password)
        case "oauth2":
            return _oauth2(config, tree)
        case "kerberos":
            return KerberosAuth(config.auth_user)
        case None:
            if not tree.is_bad("auth_type"):
                tree.complain(("auth_type",), 'missing: it must be "ntlm", "oauth2", "basic" or "kerberos"')
            return None


def _need(config: ConfigKeys, tree: Tree, key: str) -> None:
    if getattr(config, key) is not None or tree.is_bad(key):
        return
    variable = variable_for(key)
    instead = ""
    if variable:
        names = f"{variable.name} or {variable.file}" if variable.secret else variable.name
        instead = f", or set {names}"
    tree.complain((key,), f'missing, and auth_type "{config.auth_type}" needs it: give it{instead}')


def _oauth2(config: ConfigKeys, tree: Tree) -> OAuth2 | None:
    for key in ("auth_oauth_authority", "auth_oauth_client_id"):
        _need(config, tree, key)
    authority = _authority(config.auth_oauth_authority, tree) if config.auth_oauth_authority else None
    credential = _credential(config, tree)
    if authority is None or config.auth_oauth_client_id is None or credential is None:
        return None
    return OAuth2(authority, config.auth_oauth_client_id, credential)


def _authority(text: str, tree: Tree) -> str | None:
    kind = 'an https address with the tenant in its path, such as "https://login.microsoftonline.com/contoso.com/"'
    try:
        url = checked_url(text, kind)
        if url.scheme != "https" or not url.path.strip("/"):
            raise ValueError(not_allowed(kind, text))  # noqa: TRY301 - the same words for every reason
    except ValueError as error:
        tree.complain(("auth_oauth_authority",), str(error))
        return None
    if url.path.strip("/").lower() in NO_TENANT:
        # These are for people, who bring their tenant along; an application is let in by one tenant.
        tree.complain(("auth_oauth_authority",), f"must end with the tenant's id or domain, not {shown(url.path)}")
        return None
    return text.rstrip("/")


def _credential(config: ConfigKeys, tree: Tree) -> ClientSecret | ClientCertificate | None:
    keys = (_PRIVATE_KEY, _THUMBPRINT, _CERTIFICATE)
    certificate_keys = [key for key in keys if tree.has(key)]
    if tree.has(_SECRET):
        if certificate_keys:
            tree.complain((_SECRET,), f"cannot be given together with {certificate_keys[0]}: keep one of the two")
            return None
        return ClientSecret(config.auth_oauth_client_secret) if config.auth_oauth_client_secret else None
    if tree.is_bad(_SECRET):
        return None
    if not certificate_keys and not any(tree.is_bad(key) for key in keys):
        tree.complain(
            (_SECRET,),
            f'missing, and auth_type "oauth2" needs it: give it (or set {_variable_name(_SECRET)}), '
            f"or {_PRIVATE_KEY} and {_THUMBPRINT}",
        )
        return None
    if not tree.has(_PRIVATE_KEY):
        _need(config, tree, _PRIVATE_KEY)
    elif not tree.has(_THUMBPRINT) and not tree.has(_CERTIFICATE) and not tree.is_bad(_THUMBPRINT):
        tree.complain((_THUMBPRINT,), f"missing, and the private key needs it: give it, or {_CERTIFICATE}")
    key = _private_key(config, tree)
    thumbprint = _thumbprint(config, tree)
    certificate = _certificate(config, tree)
    if key is None or (thumbprint is None and certificate is None):
        return None
    return ClientCertificate(SecretStr(key), thumbprint, certificate)


def _variable_name(key: str) -> str:
    variable = variable_for(key)
    return variable.name if variable else key


def _thumbprint(config: ConfigKeys, tree: Tree) -> str | None:
    text = config.auth_oauth_client_credential_thumbprint
    if text is None:
        return None
    digits = re.sub(r"[\s:]", "", text).upper()
    if re.fullmatch(r"[0-9A-F]{40}", digits):
        return digits
    tree.complain((_THUMBPRINT,), not_allowed("the certificate's SHA-1 thumbprint, 40 hexadecimal digits", text))
    return None


def _private_key(config: ConfigKeys, tree: Tree) -> str | None:
    given = config.auth_oauth_client_credential_private_key
    if given is None:
        return None
    blocks = _pem(given.get_secret_value(), _PRIVATE_KEY, "a private key in PEM form", tree)
    if blocks is None:
        return None
    for label, body in blocks:
        if label == "ENCRYPTED PRIVATE KEY" or (label.endswith("PRIVATE KEY") and "ENCRYPTED" in body):
            tree.complain((_PRIVATE_KEY,), "is protected by a passphrase: give the private key without one")
            return None
        if label.endswith("PRIVATE KEY") and (text := _normal(label, body)):
            return text
    tree.complain((_PRIVATE_KEY,), "must hold a private key in PEM form, -----BEGIN PRIVATE KEY-----; it does not")
    return None


def _certificate(config: ConfigKeys, tree: Tree) -> str | None:
    given = config.auth_oauth_client_credential_certificate
    if given is None:
        return None
    blocks = _pem(given, _CERTIFICATE, "a certificate in PEM form", tree)
    if blocks is None:
        return None
    texts = [text for label, body in blocks if label == "CERTIFICATE" and (text := _normal(label, body))]
    if not texts:
        tree.complain((_CERTIFICATE,), "must hold a certificate in PEM form, -----BEGIN CERTIFICATE-----; it does not")
        return None
    return "".join(texts)


def _pem(value: str, key: str, kind: str, tree: Tree) -> list[tuple[str, str]] | None:
    """Take PEM blocks apart: of the value itself, or of the file that it is the path of. The value is never shown."""
    if "-----BEGIN" not in value:
        try:
            value = Path(value.strip()).read_text(encoding="utf-8")
        except OSError as error:
            tree.complain((key,), f"must be {kind}, or the path of a file with one; as a path: {reason(error)}")
            return None
        except ValueError:
            tree.complain((key,), f"must be {kind}, or the path of a file with one")
            return None
    # Line ends arrive as themselves, as \n in so many letters, or as spaces, depending on who quoted the value last.
    value = value.replace("\\r", "").replace("\\n", "\n")
    return [(match[1], match[2]) for match in _BLOCK.finditer(value)]


def _normal(label: str, body: str) -> str | None:
    body = "".join(body.split())
    try:
        base64.b64decode(body, validate=True)
    except binascii.Error:
        return None
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")) if lines else None


# --- What its certificate must be like -------------------------------------------------------------------------------


def _ca_bundle(config: ConfigKeys, tree: Tree) -> Path | None:
    if config.ews_ssl_ca_bundle is None:
        return None
    import ssl  # noqa: PLC0415 - loading OpenSSL takes a while, and most configs do without

    path, key = Path(config.ews_ssl_ca_bundle), ("ews_ssl_ca_bundle",)
    try:
        if not path.is_file():
            path.stat()
            tree.complain(key, f"must be a PEM file with certificates, and {shown(str(path))} is not a file")
            return None
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        tree.complain(key, f"must be a PEM file with certificates, and {shown(str(path))} holds none that can be read")
    except OSError as error:
        tree.complain(
            key, f"must be a PEM file with certificates, and {shown(str(path))} cannot be read: {reason(error)}"
        )
    except ValueError:
        tree.complain(key, not_allowed("the path of a PEM file with certificates", str(path)))
    else:
        return path
    return None


def _check_ciphers(config: ConfigKeys, tree: Tree) -> None:
    if config.ews_ssl_ciphers is None:
        return
    import ssl  # noqa: PLC0415 - as above

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(config.ews_ssl_ciphers)
    except (ssl.SSLError, ValueError):
        tree.complain(
            ("ews_ssl_ciphers",),
            not_allowed('a cipher list that OpenSSL accepts, such as "ECDHE+AESGCM"', config.ews_ssl_ciphers),
        )

from __future__ import annotations

from pathlib import Path
from typing import Any

import certifi
import pytest

from ews_sync.settings.describe import describe, login_of, secrets_of
from ews_sync.settings.exchange import (
    AccessType,
    BasicAuth,
    ClientCertificate,
    ClientSecret,
    KerberosAuth,
    NtlmAuth,
    OAuth2,
)
from tests.settings.examples import (
    CERTIFICATE,
    CLIENT_SECRET,
    FILLED,
    KEY,
    NTLM,
    PASSWORD,
    THUMBPRINT,
    basic,
    load,
    problems,
)

SECRET = {**CLIENT_SECRET, **FILLED, "auth_oauth_client_secret": PASSWORD}
KEY_AND_THUMBPRINT = {
    **CERTIFICATE,
    **FILLED,
    "auth_oauth_client_credential_private_key": KEY,
    "auth_oauth_client_credential_thumbprint": THUMBPRINT,
}
PEM_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nQUJDREVG\n-----END CERTIFICATE-----\n"
LEFT = "still has the placeholder {}: put your own value there"


@pytest.mark.parametrize(
    ("config", "endpoint"),
    [
        ({"host": "mail.example.com"}, "http://mail.example.com/EWS/Exchange.asmx"),
        ({"host": "mail.example.com", "port": 80}, "http://mail.example.com/EWS/Exchange.asmx"),
        ({"host": "mail.example.com", "port": "8080"}, "http://mail.example.com:8080/EWS/Exchange.asmx"),
        ({"host": "mail.example.com", "port": 443}, "https://mail.example.com/EWS/Exchange.asmx"),
        ({"host": "http://mail.example.com", "port": 443}, "http://mail.example.com:443/EWS/Exchange.asmx"),
        ({"host": "https://mail.example.com/", "port": 443}, "https://mail.example.com/EWS/Exchange.asmx"),
        ({"host": "https://mail.example.com"}, "https://mail.example.com:80/EWS/Exchange.asmx"),
        ({"host": "https://mail.example.com:8443"}, "https://mail.example.com:8443/EWS/Exchange.asmx"),
        ({"host": "127.0.0.1", "port": 1}, "http://127.0.0.1:1/EWS/Exchange.asmx"),
        ({"host": "::1", "port": 8080}, "http://[::1]:8080/EWS/Exchange.asmx"),
        ({"host": "[::1]", "port": 443}, "https://[::1]/EWS/Exchange.asmx"),
        ({"ews_endpoint": "http://127.0.0.1:1/x"}, "http://127.0.0.1:1/x"),
        ({"ews_endpoint": "https://a.b/EWS/Exchange.asmx", "port": 443}, "https://a.b/EWS/Exchange.asmx"),
    ],
)
def test_where_the_server_is(config: dict[str, Any], endpoint: str) -> None:
    assert load(basic("host") | config).exchange.endpoint == endpoint


HOST = 'must be a host, such as "mail.example.com" or "https://mail.example.com"'
WHOLE = 'must be the whole address of Exchange Web Services, such as "https://mail.example.com/EWS/Exchange.asmx"'


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (
            {},
            (
                'ews_endpoint: missing: give ews_endpoint, such as "https://mail.example.com/EWS/Exchange.asmx", '
                "or host and port"
            ),
        ),
        (
            {"host": "a.b", "ews_endpoint": "https://a.b/c"},
            "host: cannot be given together with ews_endpoint: keep one of the two",
        ),
        ({"host": "a b"}, f'host: {HOST}, not "a b"'),
        ({"host": "ftp://a.b"}, f'host: {HOST}, not "ftp://a.b"'),
        ({"host": "a.b:99"}, f'host: {HOST}, not "a.b:99": the port has a key of its own, port'),
        ({"host": "https://a.b:99", "port": 98}, "host: says port 99, but port is 98: keep one of the two"),
        (
            {"host": "https://a.b/EWS"},
            f'host: {HOST}, not "https://a.b/EWS": for a whole address there is ews_endpoint',
        ),
        (
            {"host": f"https://u:{PASSWORD}@a.b"},
            "host: must not contain a user or password: they have keys of their own",
        ),
        ({"host": "a.b", "port": 0}, "port: must be a whole number between 1 and 65535, not 0"),
        ({"host": "a.b", "port": 65536}, "port: must be a whole number between 1 and 65535, not 65536"),
        ({"ews_endpoint": "a.b"}, f'ews_endpoint: {WHOLE}, not "a.b"'),
        ({"ews_endpoint": "https://a.b/"}, f'ews_endpoint: {WHOLE}, not "https://a.b/"'),
        ({"ews_endpoint": "https://a.b:x/c"}, f'ews_endpoint: {WHOLE}, not "https://a.b:x/c"'),
        (
            {"ews_endpoint": "https://a.b/c?d"},
            'ews_endpoint: must end with its path, without ? or #, not "https://a.b/c?d"',
        ),
        (
            {"ews_endpoint": "https://a.b/c", "port": 8443},
            "port: does nothing beside ews_endpoint: put the port into that address, or remove it",
        ),
        ({"ews_endpoint": "https://<host>/c"}, f"ews_endpoint: {LEFT.format('<host>')}"),
    ],
)
def test_where_the_server_cannot_be(config: dict[str, Any], line: str) -> None:
    assert problems(basic("host") | config) == [line]


def test_the_documented_client_secret() -> None:
    exchange = load(SECRET).exchange
    assert exchange.endpoint == "https://outlook.office365.com/EWS/Exchange.asmx"
    assert exchange.access_type is AccessType.IMPERSONATION
    assert isinstance(exchange.auth, OAuth2)
    assert exchange.auth.authority == FILLED["auth_oauth_authority"].rstrip("/")
    assert exchange.auth.client_id == FILLED["auth_oauth_client_id"]
    assert isinstance(exchange.auth.credential, ClientSecret)
    assert exchange.auth.credential.secret.get_secret_value() == PASSWORD


def test_the_documented_certificate() -> None:
    auth = load(KEY_AND_THUMBPRINT).exchange.auth
    assert isinstance(auth, OAuth2)
    assert isinstance(auth.credential, ClientCertificate)
    assert auth.credential.private_key.get_secret_value() == KEY
    assert auth.credential.thumbprint == THUMBPRINT
    assert auth.credential.certificate is None


def test_the_documented_ntlm() -> None:
    settings = load(NTLM, {"REINFER_EWS_AUTH_PASS": PASSWORD})
    auth = settings.exchange.auth
    assert isinstance(auth, NtlmAuth)
    assert (auth.user, auth.password.get_secret_value()) == ("ews-service-user@example.com", PASSWORD)
    assert settings.exchange.endpoint == "https://exchange-server.example.com/EWS/Exchange.asmx"
    assert [mailbox.address for mailbox in settings.mailboxes] == ["abc@example.com", "xyz@example.com"]


def test_the_documented_examples_need_filling_in() -> None:
    assert problems(CLIENT_SECRET) == [
        f"auth_oauth_authority: {LEFT.format('<tenant_id>')}",
        f"auth_oauth_client_id: {LEFT.format('<client_id>')}",
        f"auth_oauth_client_secret: {LEFT.format('<client_secret>')}",
    ]
    assert problems(CERTIFICATE) == [
        f"auth_oauth_authority: {LEFT.format('<tenant_id>')}",
        f"auth_oauth_client_id: {LEFT.format('<client_id>')}",
        f"auth_oauth_client_credential_private_key: {LEFT.format('<private_key>')}",
        f"auth_oauth_client_credential_thumbprint: {LEFT.format('<thumbprint>')}",
    ]
    assert problems(NTLM) == [
        (
            'auth_password: missing, and auth_type "ntlm" needs it: give it, or set REINFER_EWS_AUTH_PASS or '
            "REINFER_EWS_AUTH_PASS_FILE"
        )
    ]


def test_placeholders_anywhere_but_inside_a_password() -> None:
    entry = {"bucket": {"owner": "<project-name>", "name": "n"}, "folder_allowlist": [["Kunden <alt>"], ["<folder>"]]}
    assert problems(basic(auth_user="<MSEXCHANGE_USER>", mailboxes={"<user>@b.c": entry})) == [
        f"auth_user: {LEFT.format('<MSEXCHANGE_USER>')}",
        f'mailboxes."<user>@b.c": {LEFT.format("<user>")}',
        f'mailboxes."<user>@b.c".bucket.owner: {LEFT.format("<project-name>")}',
        f'mailboxes."<user>@b.c".folder_allowlist[1][0]: {LEFT.format("<folder>")}',
    ]
    auth = load(basic(auth_password="a<b>c")).exchange.auth
    assert isinstance(auth, BasicAuth)
    assert auth.password.get_secret_value() == "a<b>c"


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        KEY.replace("\n", "\\n"),
        KEY.replace("\n", "\r\n"),
        KEY.replace("\n", " "),
        "Bag Attributes\n" + KEY,
    ],
)
def test_forms_of_a_private_key(form: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(form, encoding="utf-8")
    for value in (form, str(path)):
        auth = load(KEY_AND_THUMBPRINT | {"auth_oauth_client_credential_private_key": value}).exchange.auth
        assert isinstance(auth, OAuth2)
        assert isinstance(auth.credential, ClientCertificate)
        assert auth.credential.private_key.get_secret_value() == KEY


def test_a_certificate_instead_of_its_thumbprint() -> None:
    config = KEY_AND_THUMBPRINT | {"auth_oauth_client_credential_certificate": PEM_CERTIFICATE}
    del config["auth_oauth_client_credential_thumbprint"]
    auth = load(config).exchange.auth
    assert isinstance(auth, OAuth2)
    assert isinstance(auth.credential, ClientCertificate)
    assert (auth.credential.thumbprint, auth.credential.certificate) == (None, PEM_CERTIFICATE)


AUTHORITY = (
    'must be an https address with the tenant in its path, such as "https://login.microsoftonline.com/contoso.com/"'
)


@pytest.mark.parametrize(
    ("base", "changes", "line"),
    [
        (SECRET, {"auth_oauth_authority": "http://a.b/c"}, f'auth_oauth_authority: {AUTHORITY}, not "http://a.b/c"'),
        (SECRET, {"auth_oauth_authority": "https://a.b/"}, f'auth_oauth_authority: {AUTHORITY}, not "https://a.b/"'),
        (
            SECRET,
            {"auth_oauth_authority": "https://login.microsoftonline.com/Common/"},
            """auth_oauth_authority: must end with the tenant's id or domain, not "/Common/\"""",
        ),
        (
            SECRET,
            {"auth_oauth_client_id": None},
            (
                'auth_oauth_client_id: missing, and auth_type "oauth2" needs it: give it, or set '
                "REINFER_EWS_AUTH_OAUTH_CLIENT_ID"
            ),
        ),
        (
            SECRET,
            {"auth_oauth_client_secret": None},
            (
                'auth_oauth_client_secret: missing, and auth_type "oauth2" needs it: give it (or set '
                "REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET), or auth_oauth_client_credential_private_key and "
                "auth_oauth_client_credential_thumbprint"
            ),
        ),
        (
            SECRET,
            {"auth_oauth_client_credential_thumbprint": THUMBPRINT},
            (
                "auth_oauth_client_secret: cannot be given together with auth_oauth_client_credential_thumbprint: keep "
                "one of the two"
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_thumbprint": "0123"},
            (
                "auth_oauth_client_credential_thumbprint: must be the certificate's SHA-1 thumbprint, 40 hexadecimal "
                'digits, not "0123"'
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_thumbprint": None},
            (
                "auth_oauth_client_credential_thumbprint: missing, and the private key needs it: give it, or "
                "auth_oauth_client_credential_certificate"
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_private_key": None},
            (
                'auth_oauth_client_credential_private_key: missing, and auth_type "oauth2" needs it: give it, or set '
                "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY or "
                "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY_FILE"
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_private_key": "bWFuZ2xlZC1rZXk="},
            (
                "auth_oauth_client_credential_private_key: must be a private key in PEM form, or the path of a file "
                "with one; as a path: no such file or directory"
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_private_key": PEM_CERTIFICATE},
            (
                "auth_oauth_client_credential_private_key: must hold a private key in PEM form, -----BEGIN PRIVATE "
                "KEY-----; it does not"
            ),
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_private_key": KEY.replace("PRIVATE", "ENCRYPTED PRIVATE")},
            "auth_oauth_client_credential_private_key: is protected by a passphrase: give the private key without one",
        ),
        (
            KEY_AND_THUMBPRINT,
            {"auth_oauth_client_credential_certificate": KEY},
            (
                "auth_oauth_client_credential_certificate: must hold a certificate in PEM form, -----BEGIN "
                "CERTIFICATE-----; it does not"
            ),
        ),
    ],
)
def test_oauth2_problems(base: dict[str, Any], changes: dict[str, object], line: str) -> None:
    assert problems(base | changes) == [line]


def test_kerberos_is_reserved() -> None:
    assert load(basic("auth_user", "auth_password", auth_type="kerberos")).exchange.auth == KerberosAuth(None)


def test_ciphers() -> None:
    assert load(basic(ews_ssl_ciphers="ECDHE+AESGCM")).exchange.ssl_ciphers == "ECDHE+AESGCM"
    assert problems(basic(ews_ssl_ciphers="nonsense")) == [
        'ews_ssl_ciphers: must be a cipher list that OpenSSL accepts, such as "ECDHE+AESGCM", not "nonsense"'
    ]


def test_ca_bundle(tmp_path: Path) -> None:
    bundle = Path(certifi.where())
    assert load(basic(ews_ssl_ca_bundle=str(bundle))).exchange.ssl_ca_bundle == bundle
    empty = tmp_path / "empty.pem"
    empty.touch()
    begin = "ews_ssl_ca_bundle: must be a PEM file with certificates, and"
    for path, end in (
        (tmp_path, "is not a file"),
        (tmp_path / "none", "cannot be read: no such file or directory"),
        (empty, "holds none that can be read"),
    ):
        assert problems(basic(ews_ssl_ca_bundle=str(path))) == [f'{begin} "{path}" {end}']


@pytest.mark.parametrize("config", [basic(), SECRET, KEY_AND_THUMBPRINT, basic(auth_type="ntlm")])
def test_secrets_do_not_show(config: dict[str, Any]) -> None:
    settings = load(config)
    for text in (repr(settings), str(settings), str(describe(settings))):
        for secret in (PASSWORD, KEY, repr(KEY)[1:-1], "token-0123456789"):
            assert secret not in text
    assert secrets_of(settings)[0] == "token-0123456789"
    assert secrets_of(settings)[1] in {PASSWORD, KEY}
    assert login_of(settings) in {None, ("service", PASSWORD)}

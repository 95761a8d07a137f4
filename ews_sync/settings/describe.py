"""Settings for people: what to log at the start and to show on /status, without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ews_sync.settings.exchange import BasicAuth, ClientCertificate, ClientSecret, KerberosAuth, NtlmAuth, OAuth2
from ews_sync.settings.values import Settings

if TYPE_CHECKING:
    from ews_sync.settings.exchange import Auth
    from ews_sync.settings.values import RunOptions

MASK = "***"


def describe(settings: Settings) -> dict[str, Any]:
    """Give the settings as plain JSON values, with `***` where a secret stands."""
    exchange, shard = settings.exchange, settings.shard
    return {
        "config": settings.config_source,
        "bind": str(settings.bind),
        "debug_level": settings.debug_level,
        "destination": _destination(settings),
        "dead_letter_dir": str(settings.dead_letter_dir) if settings.dead_letter_dir else None,
        "exchange": {
            "endpoint": exchange.endpoint,
            "auth": _auth(exchange.auth),
            "access_type": str(exchange.access_type),
            "ssl_verify": exchange.ssl_verify,
            "ssl_ca_bundle": str(exchange.ssl_ca_bundle) if exchange.ssl_ca_bundle else None,
            "ssl_ciphers": exchange.ssl_ciphers,
        },
        "pace": {
            "poll_frequency": settings.pace.poll_frequency,
            "poll_message_sleep": settings.pace.poll_message_sleep,
            "max_concurrent_uploads": settings.pace.max_concurrent_uploads,
            "emails_per_folder": settings.pace.emails_per_folder,
            "reinfer_batch_size": settings.pace.reinfer_batch_size,
        },
        "mailboxes": [
            {
                "address": mailbox.address,
                "bucket": str(mailbox.bucket),
                "start_from": str(mailbox.start_from),
                "start_timestamp": mailbox.start_timestamp.isoformat() if mailbox.start_timestamp else None,
                "folder_allowlist": [list(path) for path in mailbox.folder_allowlist],
                "folder_denylist": [list(path) for path in mailbox.folder_denylist],
            }
            for mailbox in settings.mailboxes
        ],
        "shard": {"name": shard.name, "number": shard.number, "total": shard.total} if shard else None,
        "restart_on_unrecoverable_errors": settings.restart_on_unrecoverable_errors,
        "audit_email": settings.audit_email,
    }


def _destination(settings: Settings) -> dict[str, str | None]:
    if settings.local_files_prefix is not None:
        return {"directory": str(settings.local_files_prefix), "format": str(settings.local_files_format)}
    return {"platform": settings.reinfer_api_endpoint, "token": MASK}


def _auth(auth: Auth) -> dict[str, str | None]:
    match auth:
        case BasicAuth(user=user) | NtlmAuth(user=user):
            return {"type": auth.kind, "user": user, "password": MASK}
        case KerberosAuth(user=user):
            return {"type": auth.kind, "user": user}
        case OAuth2(authority=authority, client_id=client_id, credential=credential):
            facts: dict[str, str | None] = {"type": auth.kind, "authority": authority, "client_id": client_id}
            if isinstance(credential, ClientSecret):
                return {**facts, "client_secret": MASK}
            return {**facts, "private_key": MASK, "thumbprint": credential.thumbprint}


def secrets_of(options: RunOptions) -> tuple[str, ...]:
    """Give the secrets themselves, for the log's redaction to know: nothing else has a use for them in one place."""
    secrets = [options.api_token]
    match options.exchange.auth if isinstance(options, Settings) else None:
        case BasicAuth(password=password) | NtlmAuth(password=password):
            secrets.append(password)
        case OAuth2(credential=ClientSecret(secret=secret)):
            secrets.append(secret)
        case OAuth2(credential=ClientCertificate(private_key=private_key)):
            secrets.append(private_key)
        case KerberosAuth() | None:
            pass
    return tuple(secret.get_secret_value() for secret in secrets if secret is not None)


def login_of(options: RunOptions) -> tuple[str, str] | None:
    """Give user and password, where that is how to log in: together in base64 they are as secret as the password."""
    auth = options.exchange.auth if isinstance(options, Settings) else None
    if isinstance(auth, (BasicAuth, NtlmAuth)):
        return auth.user, auth.password.get_secret_value()
    return None

"""The command's options and the environment's variables: their names, defaults and descriptions. No validation.

The standard library only, so that `--help` and `--version` answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the command line and its variable in the environment.

    `name` is its key in the arguments; `default` is for people, "" where there is none; `flag` options take no value.
    """

    name: str
    variable: str
    metavar: str
    help: str
    default: str = ""
    flag: bool = False

    @property
    def text(self) -> str:
        """The option as it is typed."""
        return "--" + self.name.replace("_", "-")


WHERE = "where the mail goes (give one of the first two)"
CONFIG = "the config file"
SERVICE = "the service"
CLUSTER = "several instances"
DEMO = "the demo"

BIND = Option(
    "bind",
    "REINFER_EWS_BIND",
    "HOST:PORT",
    "Address of the page, /status, /metrics and the probes.",
    "127.0.0.1:8000",
)
REINFER_API_ENDPOINT = Option(
    "reinfer_api_endpoint",
    "REINFER_API_ENDPOINT",
    "URL",
    "Endpoint to connect to the Reinfer API, such as https://mydomain.reinfer.io/api/. Needs REINFER_API_TOKEN. "
    "Mutually exclusive with --local-files-prefix.",
)
LOCAL_FILES_PREFIX = Option(
    "local_files_prefix",
    "REINFER_EWS_LOCAL_FILES_PREFIX",
    "DIRECTORY",
    "Path to store synced emails and bucket sync state. "
    "Mutually exclusive with --reinfer-api-endpoint and REINFER_API_TOKEN.",
)
LOCAL_FILES_FORMAT = Option(
    "local_files_format",
    "REINFER_EWS_LOCAL_FILES_FORMAT",
    "FORMAT",
    'How local files are written: "eml" (each message as it is, its metadata beside it) or "jsonl" (lines that the '
    "platform's own command line client takes).",
    "eml",
)
DEAD_LETTER_DIR = Option(
    "dead_letter_dir",
    "REINFER_EWS_DEAD_LETTER_DIR",
    "DIRECTORY",
    "Keep a JSON line for each email that could not be stored in this directory. For syncing into the platform; with "
    "--local-files-prefix these lines lie beside the mail.",
)
REMOTE_CONFIG_OWNER = Option(
    "remote_config_owner",
    "REINFER_EWS_REMOTE_CONFIG_OWNER",
    "PROJECT",
    "Project that owns the remote EWS appliance config file, which is looked at again every few minutes. With "
    "--local-files-prefix the file is DIRECTORY/config/PROJECT/NAME.json. REINFER_EWS_CONFIG, where set, wins.",
)
REMOTE_CONFIG_KEY = Option(
    "remote_config_key",
    "REINFER_EWS_REMOTE_CONFIG_KEY",
    "NAME",
    "Name of the remote EWS appliance config file.",
)
DEBUG_LEVEL = Option(
    "debug_level",
    "REINFER_EWS_DEBUG_LEVEL",
    "LEVEL",
    "Debug level. 0 = No debug, 1 = Service debug, 2 = Full debug.",
    "1",
)
SHARD_NAME = Option(
    "shard_name",
    "REINFER_EWS_SHARD_NAME",
    "NAME",
    "Shard name, such as ews-2, to extract the shard number from; shards count from 0. In Kubernetes: the pod's name.",
)
TOTAL_SHARDS = Option(
    "total_shards",
    "REINFER_EWS_TOTAL_SHARDS",
    "NUMBER",
    "The total number of instances in the cluster. In Kubernetes: the StatefulSet's number of replicas.",
)
RESTART = Option(
    "restart_on_unrecoverable_errors",
    "REINFER_EWS_RESTART_ON_UNRECOVERABLE_ERRORS",
    "",
    "If enabled, unrecoverable failures result in the entire service being restarted without crashing.",
    "off",
    flag=True,
)

GROUPS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (WHERE, (REINFER_API_ENDPOINT, LOCAL_FILES_PREFIX, LOCAL_FILES_FORMAT, DEAD_LETTER_DIR)),
    (CONFIG, (REMOTE_CONFIG_OWNER, REMOTE_CONFIG_KEY)),
    (SERVICE, (BIND, DEBUG_LEVEL, RESTART)),
    (CLUSTER, (SHARD_NAME, TOTAL_SHARDS)),
)
"""What `run` and `check` take, as `--help` groups it."""

OPTIONS: tuple[Option, ...] = tuple(option for _, group in GROUPS for option in group)

DEMO_ONLY: tuple[Option, ...] = (
    Option("mailboxes", "", "NUMBER", "How many mailboxes the simulated server has.", "3"),
    Option("emails", "", "NUMBER", "How many emails each mailbox starts with.", "400"),
    Option("directory", "", "DIRECTORY", "Where the demo puts the mail.", "./demo-data"),
    Option("rate", "", "NUMBER", "How many new emails arrive a minute.", "30"),
    Option("platform", "", "", "Sync into a simulated platform instead of files.", "off", flag=True),
)
"""What only `demo` takes. No variables: a demo is typed by hand."""

DEMO_SHARED: tuple[Option, ...] = (BIND, DEBUG_LEVEL, LOCAL_FILES_FORMAT)
"""What `demo` takes besides."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the environment that overrides a key of the config file, or (`key` "") stands alone.

    A secret can also be in a file, whose path is in the variable with `_FILE` appended.
    """

    name: str
    key: str
    help: str
    secret: bool = False

    @property
    def file(self) -> str:
        """The variable that holds a path to the secret."""
        return self.name + "_FILE"


CONFIG_PATH = Variable("REINFER_EWS_CONFIG", "", "Path of the JSON config file")
API_TOKEN = Variable("REINFER_API_TOKEN", "", "Token for the Reinfer API", secret=True)

OVERRIDES: tuple[Variable, ...] = (
    Variable("REINFER_EWS_HOST", "host", "Exchange server host"),
    Variable("REINFER_EWS_PORT", "port", "Exchange server port"),
    Variable("REINFER_EWS_AUTH_USER", "auth_user", "Exchange server user"),
    Variable("REINFER_EWS_AUTH_PASS", "auth_password", "Exchange server password", secret=True),
    Variable("REINFER_EWS_ACCESS_TYPE", "access_type", 'Access type: "delegate" or "impersonation"'),
    Variable("REINFER_EWS_AUTH_OAUTH_AUTHORITY", "auth_oauth_authority", "OAuth 2 authority"),
    Variable("REINFER_EWS_AUTH_OAUTH_CLIENT_ID", "auth_oauth_client_id", "OAuth 2 client id"),
    Variable("REINFER_EWS_AUTH_OAUTH_CLIENT_SECRET", "auth_oauth_client_secret", "OAuth 2 client secret", secret=True),
    Variable(
        "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_PRIVATE_KEY",
        "auth_oauth_client_credential_private_key",
        "OAuth 2 client certificate's private key",
        secret=True,
    ),
    Variable(
        "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_THUMBPRINT",
        "auth_oauth_client_credential_thumbprint",
        "OAuth 2 client certificate's thumbprint",
    ),
    Variable(
        "REINFER_EWS_AUTH_OAUTH_CLIENT_CREDENTIAL_CERTIFICATE",
        "auth_oauth_client_credential_certificate",
        "OAuth 2 client certificate",
    ),
)
"""The variables that override a key of the config file."""

VARIABLES: tuple[Variable, ...] = (CONFIG_PATH, API_TOKEN, *OVERRIDES)


def variable_for(key: str) -> Variable | None:
    """Give the variable that overrides the config file's `key`, if there is one."""
    return next((variable for variable in OVERRIDES if variable.key == key), None)

"""The places that settings come from, and which of them wins: pydantic-settings puts the values together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


class Layer(PydanticBaseSettingsSource):
    """A settings source with the values that one place gives, by field; what it does not mention is for the next."""

    def __init__(self, model: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(model)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - as the base
        """Give a field's value as it stands: none of them is JSON within a text, which is what the flag would say."""
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Give everything, keys that are no fields too: the model refuses them."""
        return dict(self._values)


class Layered(BaseSettings):
    """Settings that come from the command line, else the environment, else the config file, else the default."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)

    @classmethod
    def from_layers(
        cls,
        *,
        command_line: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        config_file: Mapping[str, Any] | None = None,
    ) -> Self:
        """Put the settings together from what each place gives, by the fields' names.

        Raises:
            pydantic.ValidationError: a value that counts is wrong. One that a stronger place replaces is not looked at.
        """
        layers: dict[str, Any] = {
            "command_line": command_line or {},
            "environment": environment or {},
            "config_file": config_file or {},
        }
        return cls(**layers)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Say which place wins: the strongest comes first.

        The library's own sources are left out. They read the process's environment, whereas here it is handed in, and
        cannot say that an empty variable counts as none or that a secret may be in a file.
        """
        layers = init_settings()
        return (
            Layer(settings_cls, layers["command_line"]),
            Layer(settings_cls, layers["environment"]),
            Layer(settings_cls, layers["config_file"]),
        )

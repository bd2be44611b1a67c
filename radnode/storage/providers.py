"""Which `KeyProvider` the configuration names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from radnode.errors import ConfigError
from radnode.settings import KeysSettings
from radnode.storage.aws_kms import AwsKmsKeys
from radnode.storage.keys import KeyProvider
from radnode.storage.local_keys import CommandKeys, EnvironmentKeys, FileKeys
from radnode.storage.transit import VaultTransitKeys


def key_provider(settings: KeysSettings, data_dir: Path) -> KeyProvider:
    """Return the provider that `[keys]` names; paths are relative to `data_dir`.

    Raises:
        ConfigError: what the provider needs is not configured, or not installed.
    """
    match settings.provider:
        case "file":
            return FileKeys(data_dir / settings.directory)
        case "env":
            return EnvironmentKeys(settings.variable)
        case "command":
            return CommandKeys(settings.command, settings.timeout_seconds)
        case "aws-kms":
            if find_spec("boto3") is None:
                raise ConfigError('The key provider "aws-kms" needs boto3: pip install "radnode[aws]".')
            return AwsKmsKeys(
                settings.aws_key, settings.timeout_seconds, region=settings.aws_region, endpoint=settings.aws_endpoint
            )
        case "vault":
            return VaultTransitKeys(
                settings.vault_address,
                settings.vault_key,
                settings.timeout_seconds,
                mount=settings.vault_mount,
                token_file=None if settings.vault_token_file is None else data_dir / settings.vault_token_file,
                ca=None if settings.vault_ca is None else data_dir / settings.vault_ca,
            )

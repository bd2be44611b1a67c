"""The key-encryption key in AWS KMS: study keys are wrapped there, and the key never leaves it.

`boto3` (`pip install radnode[aws]`) is imported at the first use. Credentials are found as boto3 finds them: role of
the machine, environment, profile. A key's id here is its ARN, so that an alias may be moved to another key.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from radnode.errors import ConfigError, KeyUnavailable, SealBroken

if TYPE_CHECKING:
    from collections.abc import Callable

_BROKEN = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_PENDING_DAYS = 7  # the shortest that KMS takes; the key is of no use from the first moment on


class AwsKmsKeys:
    """A symmetric KMS key. Each call is given `timeout_seconds` to connect and as long to answer, and one try."""

    def __init__(self, key: str, timeout_seconds: float, region: str = "", endpoint: str = "") -> None:
        if not key:
            raise ConfigError('The key provider "aws-kms" needs [keys] aws_key: an alias, ARN or id of a key.')
        self._key = key
        self._timeout_seconds = timeout_seconds
        self._region = region
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._kms: Any = None

    def keys(self) -> list[str]:
        """Return the ARN of the key that `aws_key` names now."""
        return [self._call("DescribeKey", lambda kms: kms.describe_key(KeyId=self._key))["KeyMetadata"]["Arn"]]

    def wrap(self, key: bytes, context: bytes) -> tuple[str, bytes]:
        """Wrap under the key that `aws_key` names now, with `context` as its encryption context."""
        found = self._call(
            "Encrypt",
            lambda kms: kms.encrypt(KeyId=self._key, Plaintext=key, EncryptionContext=_bound(context)),
        )
        return found["KeyId"], found["CiphertextBlob"]

    def unwrap(self, kek_id: str, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap under the key of that ARN."""
        if not kek_id.startswith("arn:"):
            raise KeyUnavailable(f"The study keys are wrapped under {kek_id}, a key of another provider ([keys]).")
        found: bytes = self._call(
            "Decrypt",
            lambda kms: kms.decrypt(CiphertextBlob=wrapped, EncryptionContext=_bound(context), KeyId=kek_id),
        )["Plaintext"]
        return found

    def create(self) -> str | None:
        """Return None: move the alias to a new key, or name another key; both are the account's to allow."""
        return None

    def destroy(self, kek_id: str) -> bool:
        """Schedule the deletion of a key: KMS refuses to use it from now on.

        Raises:
            KeyUnavailable: KMS does not answer, or does not allow it.
        """
        if not kek_id.startswith("arn:"):
            return False
        self._call(
            "ScheduleKeyDeletion",
            lambda kms: kms.schedule_key_deletion(KeyId=kek_id.rpartition("/")[2], PendingWindowInDays=_PENDING_DAYS),
        )
        return True

    def _call(self, operation: str, ask: Callable[[Any], Any]) -> Any:
        """Ask KMS; what it says in error is named by its code, never quoted."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return ask(self._client())
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "no code"))[:64]
            if code in _BROKEN:
                raise SealBroken("A study key does not open with its key in KMS; it was changed.") from error
            raise KeyUnavailable(f"KMS refuses {operation} ({code}); look at the key and its policy.") from error
        except BotoCoreError as error:
            raise KeyUnavailable(f"KMS cannot be asked for {operation} ({type(error).__name__}).") from error

    def _client(self) -> Any:
        with self._lock:
            if self._kms is None:
                import boto3  # noqa: PLC0415 (an extra, and half a second to import)
                from botocore.config import Config  # noqa: PLC0415

                config = Config(
                    connect_timeout=self._timeout_seconds,
                    read_timeout=self._timeout_seconds,
                    retries={"total_max_attempts": 1},
                )
                self._kms = boto3.client(
                    "kms",
                    config=config,
                    region_name=self._region or None,
                    endpoint_url=self._endpoint or None,
                )
            return self._kms


def _bound(context: bytes) -> dict[str, str]:
    return {"radnode": context.hex()}

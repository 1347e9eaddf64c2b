"""Files behind addresses: ``s3://``, ``gs://``, ``http(s)://``, whatever fsspec speaks.

A laptop in a tunnel must not wait for ever, so what is asked first has a limit of time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from unim2_core.errors import DataError, cause

ANSWER_S = 25.0
"""What does not answer for so long counts as unreachable."""
CONNECT_S, READ_S = 5, 20
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp"}
"""Protocol -> what speaks it, where fsspec does not by itself."""

Answer = TypeVar("Answer")


def is_remote(address: str) -> bool:
    """Whether an address is not a path of this machine."""
    return "://" in address


def protocol_of(address: str) -> str:
    """``s3`` of ``s3://bucket/drive``."""
    return address.partition("://")[0]


def file_system(address: str) -> tuple[Any, str]:
    """What reads an address, and the path as it takes it.

    Raises:
        DataError: nothing that is installed speaks this protocol.
    """
    protocol = protocol_of(address)
    package = PACKAGES.get(protocol.replace("https", "http"), "fsspec")
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address, **_options(protocol))
    except (ImportError, ValueError) as error:
        raise DataError(
            f"cannot read {address}",
            expected="a path, s3://, gs://, http:// or https://, and a library that speaks it",
            found=cause(error),
            remedy=f"pip install 'unim2[fleet]' {package}, or mend the address",
        ) from error
    return system, path


def answered(address: str, ask: Callable[[], Answer], limit_s: float | None = None) -> Answer:
    """Ask something of an address, and wait for so long at most.

    Args:
        address: for messages.
        ask: the question; it goes on in a thread that nobody waits for where it takes too long.
        limit_s: seconds; None: ``ANSWER_S``.

    Raises:
        DataError: there is no answer in time, or it is a refusal.
        FileNotFoundError: it says that there is no such thing.
    """
    limit_s = ANSWER_S if limit_s is None else limit_s
    answers: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=limit_s)
    except queue.Empty:
        raise DataError(
            f"{address} does not answer",
            expected=f"an answer within {limit_s:g} s",
            found="none",
            remedy=_remedy(address),
        ) from None
    if isinstance(error, FileNotFoundError):
        raise error
    if error is not None:
        raise unreadable(address, error) from error
    return answer  # type: ignore[return-value]


def unreadable(address: str, error: BaseException) -> DataError:
    """The error for an address that refuses to be read or written."""
    said = cause(error) if isinstance(error, Exception) else type(error).__name__
    return DataError(
        f"cannot use {address}",
        expected="an address that answers, and credentials that it accepts",
        found=f"{type(error).__name__}: {said}",
        remedy=_remedy(address),
    )


def _remedy(address: str) -> str:
    ways = {
        "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, and AWS_ENDPOINT_URL "
        "where it is not Amazon's",
        "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    }
    hint = ways.get(protocol_of(address), "its spelling")
    return f"check the address, the network, and {hint}, here and on the workers"


def _options(protocol: str) -> dict[str, Any]:
    """Limits of time: what the libraries take by themselves adds up to minutes."""
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_S, "read_timeout": READ_S}
        return {"config_kwargs": {**limits, "retries": {"max_attempts": 2}}}
    if protocol in ("http", "https"):
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
        return {"client_kwargs": {"timeout": limit}}
    return {}

"""The keywords of ``client.options``, for type checkers: nothing of it is needed when a program runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, TypedDict

Duration = float | str | timedelta
"""Seconds, a text such as "1h30m", or a timedelta."""


class Options(TypedDict, total=False):
    """What ``options`` takes: what concerns the job, and not its function.

    The words of the command line, with "_" for "-" (``jobd submit --help`` explains them);
    ``jobd.model.options`` has what each may be.
    """

    queue: str
    name: str
    bound: int
    retries: int
    backoff: str | float | Sequence[float]
    jitter: float
    max_backoff: Duration
    retry_on: str | Sequence[str | type[BaseException]]
    no_retry_on: str | Sequence[str | type[BaseException]]
    max_crashes: int
    timeout: Duration
    soft_timeout: Duration
    kill_grace: Duration
    in_: Duration
    at: str | datetime
    expires: Duration
    priority: int
    concurrency_key: str
    concurrency: int
    fair_key: str
    key: str
    unique: Literal["waiting", "running"]
    if_exists: Literal["return", "fail", "replace"]
    mem: int | str
    cpus: float
    nproc: int
    nice: int

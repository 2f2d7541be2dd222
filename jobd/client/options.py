"""The keywords of ``client.options``, for type checkers: nothing of it is needed when a program runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, TypedDict

from jobd.client.deferred import DeferredBase

Duration = float | str | timedelta
"""Seconds, a text such as "1h30m", or a timedelta."""


Job = int | DeferredBase[Any]

Jobs = str | Job | Sequence[Job]
"""Ids, or deferred results."""


class Options(TypedDict, total=False):
    """What ``options`` takes: what concerns the job, and not its function.

    The words of the command line, with "_" for "-" (``jobd submit --help`` explains them);
    ``jobd.model.options`` has what each may be.
    """

    queue: str
    name: str
    bound: int
    hold: bool
    key: str
    unique: str | Sequence[str]
    if_exists: str
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
    after: Jobs
    after_any: Jobs
    after_fail: Jobs
    priority: int
    concurrency_key: str
    concurrency: int
    fair_key: str
    mem: int | str
    cpus: float
    nproc: int
    nice: int
    argv: Sequence[str]
    env: Mapping[str, str | int | PathLike[str]]
    env_file: str | PathLike[str] | Sequence[str | PathLike[str]]
    inherit_env: bool
    cwd: str | PathLike[str]

"""What the processes of the pool have to know."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has to know; travels to the zygote as JSON."""

    boot: str
    address: str
    boards_dir: str
    logs_dir: str
    path: list[str]
    preload: list[str]
    orphan_s: float
    max_payload_bytes: int
    max_output_bytes: int
    nofile_soft: int

"""The settings: one frozen tree, and where each value in it came from.

`settings` declares every key once; the names of environment variables and
flags, the origins and the check of ``jobd.toml`` are derived from that.
`directories` has the rules for the paths that depend on the user.  `load`
lays the sources over each other.
"""

from jobd.config.load import Loaded, load
from jobd.config.settings import (
    KEYS,
    Daemon,
    Jobs,
    Limits,
    Payloads,
    Pool,
    Settings,
    Store,
    env_name,
    flag_name,
    values,
)

__all__ = [
    "KEYS",
    "Daemon",
    "Jobs",
    "Limits",
    "Loaded",
    "Payloads",
    "Pool",
    "Settings",
    "Store",
    "env_name",
    "flag_name",
    "load",
    "values",
]

"""The store: the durable queue and everything that was ever told, in one SQLite file."""

from jobd.store.sqlite import Store

__all__ = ["Store"]

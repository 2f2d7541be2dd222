"""The version, in one place; the packaging reads it from here without importing jobd."""

__version__ = "0.1.0"

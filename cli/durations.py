"""Durations as people read them; `jobd.model.durations` has how they are written."""

from __future__ import annotations

from jobd.model.durations import UNITS


def spell_duration(seconds: float) -> str:
    """Return a duration as it could have been written, with nothing left out: ``1d3h46m40s``, ``1.5s``."""
    whole = int(seconds)
    parts = []
    for unit in ("d", "h", "m"):
        count, whole = divmod(whole, int(UNITS[unit]))
        parts += [f"{count}{unit}"] * bool(count)
    rest = round(seconds - int(seconds), 6)
    if rest and not parts and not whole:
        return f"{rest * 1000:.10g}ms"
    if rest or whole or not parts:
        parts.append(f"{whole + rest:.10g}s")
    return "".join(parts)


def show_duration(seconds: float) -> str:
    """Return a duration as people read it: ``350ms``, ``4.2s``, ``1h30m``.

    Two units at most: nobody looks for the seconds of a day.
    """
    if seconds < 0.9995:  # what would be rounded up to the next unit is written in it
        return f"{seconds * 1000:.0f}ms" if seconds >= 0.01 else f"{seconds * 1000:.1f}ms"
    if seconds < 59.5:
        return f"{seconds:.1f}s" if seconds < 9.95 else f"{seconds:.0f}s"
    whole = round(seconds)
    for larger, smaller in (("d", "h"), ("h", "m"), ("m", "s")):
        count, rest = divmod(whole, int(UNITS[larger]))
        if count:
            few = rest // int(UNITS[smaller])
            return f"{count}{larger}{few}{smaller}" if few else f"{count}{larger}"
    return f"{whole}s"

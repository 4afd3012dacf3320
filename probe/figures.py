"""Figures for people: speeds and durations."""


def rate(value: float) -> str:
    """Return a speed for people: two digits at least, never "0"."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """Return a duration for people: "40 s", "12 min", "3.5 h", "4.2 days"."""
    for unit, length, limit in (("s", 1, 90), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.1f} days"

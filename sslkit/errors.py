"""User-facing errors: one clear sentence each."""
import difflib
from collections.abc import Iterable

TINY = 1.2e-38                    # about the least of the normal float32 numbers


class InputError(ValueError):
    """The user gave something that cannot be used. The message tells them in one sentence; the command exits with 2."""
    exit_code = 2


class Busy(InputError):
    """Another process is running there. The command exits with EX_TEMPFAIL: try again later."""
    exit_code = 75


class Left(InputError):
    """Another process of the same run is gone. This process exits with EX_UNAVAILABLE; the command that began them all,
    with 1."""
    exit_code = 69


def choose(what: str, name: str, known: Iterable[str]) -> str:
    """`name` if it is one of `known`, else an InputError with the nearest of them and the list."""
    known = tuple(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"unknown {what} {name!r}: {hint}known: {', '.join(known)}")


def require(ok: bool, message: str) -> None:
    """Raise InputError(message) unless `ok`."""
    if not ok:
        raise InputError(message)


def in_unit(**values: float | None) -> None:
    """Raise an InputError unless each named value lies in [0, 1] or is None."""
    for name, value in _given(values):
        require(0 <= value <= 1, f"{name} is {value:g}, it must lie between 0 and 1")


def not_negative(**values: float | None) -> None:
    """Raise an InputError unless each named value is a finite number from 0 up, or None."""
    for name, value in _given(values):
        require(0 <= value < float("inf"), f"{name} is {value:g}, it must be a finite number from 0 up")


def positive(**values: float | None) -> None:
    """Raise an InputError unless each named value is a finite number above 0 that float32 holds, or None."""
    for name, value in _given(values):
        require(0 < value < float("inf"), f"{name} is {value:g}, it must be a finite number above 0")
        require(value >= TINY, f"{name} is {value:g}, it must be at least {TINY:g}")


def _given(values: dict[str, float | None]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in values.items() if value is not None]

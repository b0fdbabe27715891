"""Many runs and notebooks: the engine and its workers, one process a job, the lessons from end to end and the page they leave.

Names are imported when first asked for: a dask worker imports this room and only waits, so that it should stay small.
"""
_NAMES = {**dict.fromkeys(("Fill", "lessons", "reproduce", "tables_among"), "reproduction"), "run_batch": "engine", "lease_of": "process",
          **dict.fromkeys(("at_work", "newest"), "watch")}
__all__ = [*_NAMES]


def __getattr__(name: str):
    import importlib

    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)

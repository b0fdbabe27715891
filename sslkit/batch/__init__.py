"""Many runs and notebooks: the engine and its workers, one process a job, the lessons and the page they leave.

Names are imported when first asked for: a dask worker imports this room and only waits, so it should stay small.
"""
_MODULES = {"Fill": "reproduction", "lessons": "reproduction", "reproduce": "reproduction",
            "tables_among": "reproduction", "run_batch": "engine", "lease_of": "process", "at_work": "watch"}
__all__ = [*_MODULES]


def __getattr__(name: str):
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

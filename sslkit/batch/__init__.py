"""Many runs and notebooks: each job is a command line; the engine gives them to workers. And the lessons' page.

Names are imported when first asked for: a dask worker imports this room and only waits, so it should stay small.
"""
_MODULES = {"lessons": "reproduction", "reproduce": "reproduction", "execute_main": "execute_notebook", "Job": "jobs",
            "run_jobs": "jobs", "run_batch": "engine", "as_job": "process", "stop_when_alone": "process",
            "lease_of": "process", "at_work": "watch"}
__all__ = [*_MODULES]


def __getattr__(name: str):
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

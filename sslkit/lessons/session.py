"""What the lessons share: checked parameters, runs trained once with a live plot, kept maps and tables, a result file
at the end."""
import ast
import csv
import hashlib
import io
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from IPython import get_ipython
from IPython.display import DisplayHandle, display

import sslkit
from sslkit.batch import lease_of
from sslkit.data import SSLData
from sslkit.errors import Busy, choose, require
from sslkit.files import Lease, write_file, write_json
from sslkit.lessons import plots
from sslkit.methods import Method
from sslkit.networks import Network
from sslkit.training import Config, Machine, Run, Stopped, fit, record, run_path, store

REDRAW_SECONDS = 2


def watched() -> bool:
    """Does somebody look at this kernel? Batches and tests set SSLKIT_HEADLESS."""
    return not os.environ.get("SSLKIT_HEADLESS")


def assigned(cell: str) -> list[str]:
    """The names that lines like `x = 1` and `x: int = 1` of a cell assign."""
    lines = ast.parse(cell).body
    targets = [target for line in lines for target in getattr(line, "targets", [getattr(line, "target", None)])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def refuse_unknown_parameters(known: Iterable[str]) -> None:
    """InputError for a parameter that papermill has injected after this lesson's own, if none of them has its name.
    (papermill itself only logs a line.) known: names to accept besides."""
    cells = get_ipython().user_ns["In"] if get_ipython() else []
    injected = [k for k, cell in enumerate(cells[:-1]) if cell.startswith("# Parameters\n")]
    with suppress(SyntaxError):                         # somebody edits the notebook
        for name in assigned(cells[injected[-1]]) if injected else ():
            choose("parameter", name, [*dict.fromkeys([*assigned(cells[injected[-1] - 1]), *known])])


def begin(**parameters: object) -> None:
    """Check a lesson's parameters and print them: texts, numbers from 0; `imbalance` may be negative, as in split()."""
    refuse_unknown_parameters(parameters)
    for name, value in parameters.items():
        require(isinstance(value, (int, float, str)), f"{name} must be a number or a text, not {value!r}")
        require(isinstance(value, str) or name == "imbalance" or value >= 0,
                f"{name} is {value}, it must not be negative")
    Machine().apply()
    print(", ".join(f"{name} = {value}" for name, value in parameters.items()))


def redraw(handle: DisplayHandle | None, picture: object, **how: object) -> DisplayHandle:
    """Draw a picture in the place of the one that `handle` stands for, at first (None) in a new place."""
    if handle is None:
        return display(picture, display_id=True, **how)
    handle.update(picture, **how)
    return handle


class Live:
    """Accuracy over training, redrawn in place every two seconds while somebody watches, and at the end."""

    def __init__(self, steps: int, name: str):
        self.steps, self.name, self.points, self.handle, self.drawn = steps, name, [], None, time.monotonic()

    def __call__(self, snap) -> None:
        if snap.evaluated:
            self.points.append({"step": snap.step, **snap.metrics})
        now = time.monotonic()
        if watched() and self.points and now - self.drawn >= REDRAW_SECONDS:
            self.drawn = now
            self.draw(self.points, f"{self.name}: step {snap.step:,} of {self.steps:,}")

    def draw(self, metrics: Sequence[Mapping], title: str) -> None:
        """Draw the metrics of a run, as far as it is."""
        def line(name: str) -> tuple[list[int], list[float]]:
            return [m["step"] for m in metrics], [np.nan if m.get(name) is None else m[name] for m in metrics]

        lines = {"test accuracy": line("test_acc")}
        if metrics[0].get("mask_rate") is not None:
            lines |= {"kept guesses that are right": line("pseudo_label_acc"), "share kept": line("mask_rate")}
        self.handle = redraw(self.handle, plots.curves(lines, "", title=title))


def trained_or_found(path: Path, train: Callable[[], Run], wait: bool = True) -> Run | None:
    """The finished run in the folder `path` of the store; if it is not there, train() makes it. While another process,
    on this machine or another, trains it, wait, for two notebooks may want the same run; or give None."""
    waiting = False
    while Run(path).result is None:
        with Lease(lease_of(store(), path.name), str(path.absolute())) as mine:
            if mine.taken:
                with suppress(Busy):                  # a process without a lease, as of the command line
                    return train()
        if not wait:
            return None
        if not waiting and watched():
            print("another process trains this run: waiting for it", flush=True)
        waiting = True
        time.sleep(1)
    return Run(path)


def fit_once(method: Method, data: SSLData, config: Config = Config(), initial: Network | None = None) -> Run:
    """The finished run of these settings: from the store if a lesson has trained it before, else trained now, live. Its
    curve is drawn either way.

    initial: a trained network to begin from. Interrupting the kernel stops the run; the same cell then continues it.
    """
    resolved, name = config.resolve(data, Machine().torch_device()), type(method).__name__
    path = run_path(record(method, data, resolved, initial))
    live = Live(resolved.steps, name)
    try:
        run = trained_or_found(path, partial(fit, method, data, config, live=live, initial=initial))
    except Stopped as stop:
        print(f"{stop}: run the cell again")
        raise
    how = "trained" if live.points else "found in the store"
    if metrics := run.metrics:
        live.draw(metrics, f"{name}: {resolved.steps:,} steps")
    print(f"{name}: {how}, {resolved.steps:,} steps, {data.num_labeled} labels, seed {config.seed}")
    return run


def fit_all(jobs: Mapping[Hashable, tuple]) -> dict[Hashable, Run]:
    """The finished run of each job, one after another; those in the store are not trained again. A job: (method, data,
    config), perhaps also the network to begin from. What another process trains comes last: two that want the same
    jobs share them.

    Interrupting the kernel keeps what is finished and the state of the run in progress: the same cell then continues.
    """
    runs, trained, handle, began, todo, busy = {}, 0, None, time.monotonic(), [*jobs], 0
    while todo:
        key, k = todo.pop(0), len(runs) + 1
        method, data, config, *more = jobs[key]
        initial = more[0] if more else None
        path = run_path(record(method, data, config.resolve(data, Machine().torch_device()), initial))
        known, now = Run(path).result is not None, time.monotonic()
        left = f", about {(now - began) / trained * (len(jobs) - k + 1):.0f} s left" if trained else ""
        if not known and watched():
            handle = redraw(handle, {"text/plain": f"run {k} of {len(jobs)}: {key}{left}"}, raw=True)
        try:
            run = trained_or_found(path, partial(fit, method, data, config, initial=initial), wait=busy > len(todo))
        except Stopped as stop:
            print(f"{stop}; {k - 1} of {len(jobs)} runs are finished: run the cell again")
            raise
        if run is None:
            todo, busy = [*todo, key], busy + 1
            continue
        runs[key], busy, trained = run, 0, trained + (not known)
    if handle is not None:
        redraw(handle, {"text/plain": "done"}, raw=True)
    print(f"{len(jobs)} run{'s' * (len(jobs) != 1)}: {trained} trained, {len(jobs) - trained} found in the store")
    return {key: runs[key] for key in jobs}


def watch(pause: float = 2.0, idle: float = 20.0) -> None:
    """What is running in the store, redrawn in place every `pause` seconds until nothing has run for `idle` seconds.
    Interrupting the kernel ends it too."""
    from sslkit.batch import at_work  # only here: it reads notebooks, whose package takes a second to import

    handle, busy = None, time.monotonic()
    with suppress(KeyboardInterrupt):
        while True:
            lines = at_work(store())
            handle = redraw(handle, {"text/plain": "\n".join(lines)}, raw=True)
            if len(lines) > 1:
                busy = time.monotonic()
            elif time.monotonic() - busy >= idle:
                return
            time.sleep(pause)


def figures_folder() -> Path:
    """figures/ of the project: beside the nearest notebooks/ above the working directory, else beside the package."""
    for place in (Path.cwd(), *Path.cwd().parents):
        if (place / "notebooks").is_dir() and (place / "figures").is_dir():
            return place / "figures"
    return Path(sslkit.__file__).parents[1] / "figures"


def keep(name: str, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a table of equal rows as figures/NAME.csv, fractions rounded to four places, to be committed; the path."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    path = figures_folder() / f"{name}.csv"
    write_file(path, text.getvalue())
    return path


def kept(name: str) -> list[dict[str, float | str | None]]:
    """The rows of figures/NAME.csv: numbers, None where a cell is empty, else its text."""
    def value(text: str) -> float | str | None:
        try:
            return float(text) if text else None
        except ValueError:
            return text

    path = figures_folder() / f"{name}.csv"
    require(path.exists(), f"{path} is not there: clone the project, the package alone does not have this table")
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: value(text) for column, text in row.items()} for row in csv.DictReader(file)]


def umap_map(points: np.ndarray, seed: int = 0, neighbors: int = 15, min_dist: float = 0.6) -> np.ndarray:
    """UMAP of points (n, d) to (n, 2) float32, kept in the store by a hash of its input. The first call compiles for 10
    to 20 s. Of fewer points than have `neighbors`, their two principal components."""
    points = np.ascontiguousarray(points, dtype=np.float32)
    if len(points) <= neighbors + 1:
        u, size, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
        return np.pad(u * size, ((0, 0), (0, 2)))[:, :2]
    key = hashlib.sha256(points.tobytes() + repr((points.shape, seed, neighbors, min_dist)).encode()).hexdigest()[:16]
    path = store() / "cache" / f"umap-{key}.npy"
    try:
        return np.load(path)
    except (OSError, ValueError):                     # not there, or cut off
        pass
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import umap

        reducer = umap.UMAP(n_neighbors=neighbors, min_dist=min_dist, random_state=seed, n_jobs=1)
        found = reducer.fit_transform(points).astype(np.float32)
    torch.set_num_threads(threads)                    # numba has set OpenMP's to every core, which changes later runs
    content = io.BytesIO()
    np.save(content, found)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.getvalue())
    return found


def finish(lesson: str, **figures: float | None) -> None:
    """Write a lesson's figures, rounded to four places (None: there is none), as lessons/LESSON.json into the store,
    for batches."""
    figures = {name: value if value is None else round(value, 4) for name, value in figures.items()}
    path = store() / "lessons" / f"{lesson}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"lesson": lesson, **figures})

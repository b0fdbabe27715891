"""What the lessons share: parameters checked, runs trained once with a live plot, slow pictures kept, a result file at
the end."""
import csv
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from IPython.display import display

import sslkit
from sslkit.batch import at_work, lease_of
from sslkit.data import SSLData
from sslkit.errors import Busy, require
from sslkit.files import Lease, write_atomically, write_json
from sslkit.lessons import plots
from sslkit.methods import Method
from sslkit.networks import Network
from sslkit.training import Config, Machine, Run, Stopped, fit, record, run_path, store

REDRAW_SECONDS, LINE_SECONDS = 2, 10


def watched() -> bool:
    """Does somebody look at this kernel? Batches and tests set SSLKIT_HEADLESS."""
    return not os.environ.get("SSLKIT_HEADLESS")


def begin(**parameters: object) -> None:
    """Check a lesson's parameters (counts and seeds: whole numbers from 0) and print what is in force."""
    for name, value in parameters.items():
        require(isinstance(value, (int, float, str)), f"{name} must be a number or a text, not {value!r}")
        require(isinstance(value, str) or value >= 0, f"{name} is {value}, it must not be negative")
    Machine().apply()
    print(", ".join(f"{name} = {value}" for name, value in parameters.items()))


class Live:
    """Accuracy over training, drawn again in its place every two seconds; where nobody watches a line in ten seconds,
    drawn at the end."""

    def __init__(self, steps: int, name: str):
        self.steps, self.name, self.points, self.told, self.shown = steps, name, [], time.monotonic(), None

    def __call__(self, snap) -> None:
        if snap.evaluated:
            self.points.append((snap.step, snap.metrics["test_acc"], snap.metrics["pseudo_label_acc"], snap.metrics["mask_rate"]))
        now, last = time.monotonic(), snap.step == self.steps
        if not self.points or now - self.told < (REDRAW_SECONDS if watched() else LINE_SECONDS) and not last:
            return
        self.told = now
        if not watched() and not last:
            print(f"{self.name}: step {snap.step:,} of {self.steps:,}, test accuracy {self.points[-1][1]:.1%}", flush=True)
            return
        steps, test, pseudo, kept = zip(*self.points)
        lines = {"test accuracy": (steps, test)}
        if kept[0] is not None:
            lines |= {"pseudo-labels kept": (steps, [np.nan if p is None else p for p in pseudo]), "share kept": (steps, kept)}
        figure = plots.curves(lines, "", title=f"{self.name}: step {snap.step:,} of {self.steps:,}")
        if self.shown is None:
            self.shown = display(figure, display_id=True)
        else:
            self.shown.update(figure)


def patient(path: Path, train: Callable[[], Run]) -> Run:
    """The finished run in the folder `path` of the store: found, or trained by train(); while another process, of this
    machine or another, trains it, wait: two notebooks may want the same run."""
    waiting = False
    while Run(path).result is None:
        with Lease(lease_of(store(), path.name), str(path.absolute())) as mine:
            if mine.taken:
                with suppress(Busy):                  # a process without a lease, as of the command line
                    return train()
        if not waiting:
            print("another process trains this run: waiting for it", flush=True)
        waiting = True
        time.sleep(1)
    return Run(path)


def fit_once(method: Method, data: SSLData, config: Config = Config(), initial: Network | None = None) -> Run:
    """The finished run of these settings: from the store where some lesson has trained it before, else trained now,
    live.

    initial: a trained network to begin from. Interrupting the kernel stops the run; the same cell then continues it.
    """
    resolved, name = config.resolve(data, Machine().torch_device()), type(method).__name__
    path = run_path(record(method, data, resolved, initial))
    known = Run(path).result is not None
    try:
        run = patient(path, partial(fit, method, data, config, live=Live(resolved.steps, name), initial=initial))
    except Stopped as stop:
        print(f"{stop}: run the cell again")
        raise
    how = "found in the store" if known else "trained"
    print(f"{name}: {how}, {resolved.steps:,} steps, {data.num_labeled} labels, seed {config.seed}")
    return run


def fit_all(jobs: Mapping[Hashable, tuple]) -> dict[Hashable, Run]:
    """The finished run of each job (method, data, config, perhaps the network to begin from), one after another; those
    in the store are found, not trained again.

    Interrupting the kernel keeps what is finished and the state of the run in progress: the same cell then continues.
    """
    runs, trained, begin, printed, shown = {}, 0, time.monotonic(), time.monotonic(), None
    for k, (key, (method, data, config, *more)) in enumerate(jobs.items(), 1):
        initial = more[0] if more else None
        path = run_path(record(method, data, config.resolve(data, Machine().torch_device()), initial))
        known, now = Run(path).result is not None, time.monotonic()
        left = f", about {(now - begin) / trained * (len(jobs) - k + 1):.0f} s left" if trained else ""
        line = f"run {k} of {len(jobs)}: {key}{left}"
        if not known and watched() and shown is None:
            shown = display({"text/plain": line}, raw=True, display_id=True)
        elif not known and watched():
            shown.update({"text/plain": line}, raw=True)
        elif not known and now - printed > LINE_SECONDS:
            print(line, flush=True)
            printed = now
        try:
            runs[key] = patient(path, partial(fit, method, data, config, initial=initial))
        except Stopped as stop:
            print(f"{stop}; {k - 1} of {len(jobs)} runs are finished: run the cell again")
            raise
        trained += not known
    if shown is not None:
        shown.update({"text/plain": "done"}, raw=True)
    print(f"{len(jobs)} runs: {trained} trained, {len(jobs) - trained} found in the store")
    return runs


def watch(pause: float = 2.0, idle: float = 20.0) -> None:
    """What is at work in the store, drawn again in its place every `pause` seconds, until nothing has been for `idle`
    seconds. Interrupting the kernel ends it too."""
    shown, busy = None, time.monotonic()
    with suppress(KeyboardInterrupt):
        while True:
            lines = at_work(store())
            picture = {"text/plain": "\n".join(lines)}
            if shown is None:
                shown = display(picture, raw=True, display_id=True)
            else:
                shown.update(picture, raw=True)
            if len(lines) > 1:
                busy = time.monotonic()
            elif time.monotonic() - busy >= idle:
                return
            time.sleep(pause)


def figures_folder() -> Path:
    """figures/ of the project: beside the nearest notebooks/ above the working directory, else beside the package."""
    above = [place for place in (Path.cwd(), *Path.cwd().parents) if (place / "notebooks").is_dir() and (place / "figures").is_dir()]
    return (above[0] if above else Path(sslkit.__file__).parents[1]) / "figures"


def keep(name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table of equal rows as figures/NAME.csv, fractions rounded to four places, to be committed."""
    rows = [{column: round(value, 4) if isinstance(value, float) else value for column, value in row.items()} for row in rows]

    def save(new: Path) -> None:
        with open(new, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(figures_folder() / f"{name}.csv", save)


def kept(name: str) -> list[dict[str, float | str | None]]:
    """The rows of figures/NAME.csv: numbers, None where a cell is empty, else its text."""
    def value(text: str) -> float | str | None:
        try:
            return float(text) if text else None
        except ValueError:
            return text

    path = figures_folder() / f"{name}.csv"
    require(path.exists(), f"{path} is not there: the table is part of a clone of the project, not of the package alone")
    with open(path, newline="", encoding="utf-8") as file:
        return [{column: value(text) for column, text in row.items()} for row in csv.DictReader(file)]


def umap_map(points: np.ndarray, seed: int = 0, neighbors: int = 15, min_dist: float = 0.6) -> np.ndarray:
    """UMAP of points (n, d) to (n, 2) float32, kept in the store by a hash of its input: the first call compiles for 10
    to 20 s."""
    points = np.ascontiguousarray(points, dtype=np.float32)
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

        found = umap.UMAP(n_neighbors=neighbors, min_dist=min_dist, random_state=seed, n_jobs=1).fit_transform(points).astype(np.float32)
    torch.set_num_threads(threads)                    # numba has set OpenMP's to every core; runs trained later would come out otherwise
    path.parent.mkdir(parents=True, exist_ok=True)

    def save(new: Path) -> None:
        with open(new, "wb") as file:
            np.save(file, found)

    write_atomically(path, save)
    return found


def finish(lesson: str, **figures: float | None) -> None:
    """Write lessons/LESSON.json into the store, for batches and tables, and print the figures, rounded to four places;
    None for none."""
    figures = {name: value if value is None else round(value, 4) for name, value in figures.items()}
    path = store() / "lessons" / f"{lesson}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"lesson": lesson, **figures})
    print(json.dumps(figures))


def check(answer: object, right: Callable[[object], bool], hint: str = "look again") -> None:
    """An exercise's self-check: nothing yet while `answer` is None, an AssertionError with the hint where it is not
    `right`."""
    if answer is None:
        print("your turn: put your answer in place of None")
        return
    assert right(answer), hint
    print("right")

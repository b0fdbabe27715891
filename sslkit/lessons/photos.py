"""A folder of pictures without labels: what a person says of them, what an encoder makes of them, and what follows."""
import csv
import io
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslkit.data import Mark, Marks, SSLData, decode, features, list_pictures, load, near_copies, sample_pictures
from sslkit.errors import InputError, choose, require
from sslkit.files import cannot_write, digest, write_file
from sslkit.labelers import Labeler, at_random, typical
from sslkit.lessons import plots
from sslkit.lessons.session import redraw, watched
from sslkit.networks import encoder as encoder_called
from sslkit.records import PseudoLabels
from sslkit.training import head

SHEET = 32                        # pictures of a contact sheet
THUMB = 96                        # pixels a side of a small picture


class Photos:
    """The pictures of a folder at any depth; without one, tiles of scikit-learn's two photographs.

    marks: what a person says of them, kept in the folder. classes: the names that were given and those of the marks;
    the place of a name is the number of its class. labeler: "you", by clicks; "demo", a stand-in that takes the names
    of the folders that pictures lie in, whose marks are not kept; "auto": you, but without a viewer the stand-in labels
    the tiles.
    files: their paths from the folder; after embed() without those that are no images. InputError: no folder, no image
    in it, a file of marks that cannot be read.
    """

    def __init__(self, folder: str = "", classes: str = "", labeler: str = "auto"):
        alone = choose("labeler", labeler, ("auto", "you", "demo")) == "auto" and not folder and not watched()
        self.labeler = "demo" if alone or labeler == "demo" else "you"
        self.folder, self.files, _ = list_pictures(folder or sample_pictures())
        self.marks, self.data, self.classes = Marks(self.folder if self.labeler == "you" else None), None, []
        for name in classes.split(","):
            self.name_class(name)
        self.labels()

    def name_class(self, name: str) -> None:
        """Add a class, the last, if it is new: the numbers of the others stay."""
        name = " ".join(name.split())
        if name and name not in self.classes:
            self.classes.append(name)

    def sheet(self) -> plots.Figure:
        """A contact sheet: pictures from all over the folder."""
        some = [self.files[k] for k in np.unique(np.linspace(0, len(self.files) - 1, SHEET).astype(int))]
        with ThreadPoolExecutor() as pool:
            shown = [image for image in pool.map(self._small, some) if image is not None]
        require(bool(shown), f"none of the first pictures in {self.folder} can be read as an image")
        rows = {" " * k: shown[8 * k:8 * k + 8] for k in range(-(-len(shown) // 8))}
        return plots.image_grid(rows, size=1.05, alt=f"{len(shown)} of {len(self.files):,} pictures")

    def _small(self, file: str) -> np.ndarray | None:
        with suppress(Exception):                       # Pillow raises nearly everything on damaged files
            return decode(self.folder / file, THUMB)
        return None

    def embed(self, encoder: str = "auto", pixels: int | None = None, views: int = 6) -> Tensor:
        """The embeddings (N, D) of all pictures, with those of their views; kept, so that they are computed once.
        Prints what was left out. pixels: a side of what the encoder gets. InputErrors of encoder(), load(),
        features()."""
        made, began, handle = encoder_called(encoder, size=pixels), {}, None

        def progress(done: int, total: int, what: str) -> None:
            nonlocal handle
            left = (time.monotonic() - began.setdefault(what, time.monotonic())) * (total - done) / max(done, 1)
            if watched():
                text = f"{what}: {done:,} of {total:,}, about {left:.0f} s left"
                handle = redraw(handle, {"text/plain": text}, raw=True)

        data = load(f"pictures:{self.folder}", size=made.side, skip_bad_images=True, progress=progress)
        self.data = features(data, made, views=views, progress=progress)
        self.files = data.info["files"]
        self.__dict__.pop("copies", None)
        bad, twice = data.info["skipped"], int((self.copies >= 0).sum())
        print(f"{len(self.files):,} pictures, {self.data.features.dim} numbers each by {made.name}"
              f"{f'; cannot be read: {bad}' * bool(bad)}{f'; near copies of another: {twice}' * bool(twice)}")
        return self.z

    @property
    def z(self) -> Tensor:
        """(N, D) float32: the embeddings of the plain pictures."""
        require(self.data is not None, "the pictures have no embeddings yet: run the cell with photos.embed() first")
        return self.data.features.plain().float()

    @cached_property
    def copies(self) -> Tensor:
        """(N,) int64: the earlier picture that each is a near copy of, or -1."""
        return near_copies(self.data.images)

    def first(self, budget: int, check: int, seed: int = 0) -> dict[str, str]:
        """file -> part, in the order in which to label: `budget` typical pictures to learn from, and `check` drawn at
        random to measure, mixed. No picture of either has a near copy in the other."""
        twin = self.copies.clone()
        twin[self.copies[self.copies >= 0]] = 0
        drawn = at_random(len(self.files), check, seed, (twin >= 0).nonzero()[:, 0])
        others = torch.ones(len(self.files), dtype=torch.bool)
        others[drawn] = False
        picked = typical(self.z, budget, (others & (self.copies < 0)).nonzero()[:, 0], seed)
        parts = dict.fromkeys(picked, "train") | dict.fromkeys(drawn, "check")
        order = np.random.default_rng(seed).permutation(list(parts))
        return {self.files[row]: parts[row] for row in order.tolist()}

    def labels(self) -> tuple[Tensor, Tensor]:
        """(N,) int64 each, -1 unknown: the labels to learn from, given ones and reviewed ones; those to measure."""
        for name in self.marks.labels("train", "check", "review").values():
            self.name_class(name)                       # another notebook may have added one
        place, number = {file: k for k, file in enumerate(self.files)}, {name: c for c, name in enumerate(self.classes)}
        found = []
        for parts in (("train", "review"), ("check",)):
            y = torch.full((len(self.files),), -1)
            for file, name in self.marks.labels(*parts).items():
                if file in place:                       # else the picture was moved away
                    y[place[file]] = number[name]
            found.append(y)
        return found[0], found[1]

    def enough(self) -> bool:
        """Have two classes or more a label? Prints what to do if not, and which classes have few."""
        counts = Counter(self.marks.labels("train", "review").values())
        if len(counts) < 2:
            print("label pictures of two classes or more first, then run this cell again")
            return False
        few = [f"{name} has {counts[name] or 'none'}" for name in self.classes if counts[name] < 2]
        if few:
            print(f"note: of labels to learn from, {', '.join(few)}; two or more are better")
        return True

    def said(self) -> str:
        """How many pictures have which label, and how long it took, in a sentence."""
        marks = [mark for mark in self.marks.by_file.values() if mark.part != "review"]
        counts = Counter(mark.label or "skipped" for mark in marks)
        times = [time.mktime(time.strptime(mark.when, "%Y-%m-%dT%H:%M:%S")) for mark in marks]
        pauses = [pause for pause in np.diff(times) if 0 <= pause < 60]
        took = f" ({np.median(pauses):.0f} s each)" if np.median(pauses or [0]) else ""
        each = ", ".join(f"{n} {name}" for name, n in counts.most_common())
        return f"{len(marks)} pictures{took}{': ' * bool(each)}{each}"

    def with_head(self) -> dict[str, Labeler]:
        """The labeler `head`, which learns from the views of all pictures; none if there are no views."""
        stored = self.data.features
        tables = {kind: stored.tables[kind][stored.rows[kind]] for kind in ("weak", "strong") if kind in stored.tables}
        return {"head": partial(head, tables)} if tables else {}

    def stand_in(self, parts: Mapping[str, str], guess: Sequence[str] = ()) -> None:
        """Mark these files (file -> part) with the names of the folders they lie in, as a person would. guess: what the
        machine said of each."""
        guesses = dict(zip(parts, guess))
        marks = {file: Mark(Path(file).parent.name or "no folder", part, guesses.get(file, ""))
                 for file, part in parts.items() if file not in self.marks.by_file}
        for mark in marks.values():
            self.name_class(mark.label)
        self.marks.put(marks)

    def export(self, found: PseudoLabels, out: str | Path = "") -> Path:
        """Write labels.csv (file, label, by, confidence) and the pictures in class folders: train/ those labelled,
        test/ the check pictures, unlabeled/ the rest, as `--data folder:OUT` reads them. The folder.

        out: a new folder (default: beside the pictures, NAME-labelled). Pictures are linked, or copied to another disk.
        InputError for a folder that holds something.
        """
        out = Path(out or f"{self.folder}-labelled").expanduser().absolute()
        require(not out.exists() or not any(out.iterdir()), f"{out} holds something: give another folder, or empty it")
        text, names = io.StringIO(), self.classes
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file", "label", "by", "confidence"))
        try:
            out.mkdir(parents=True, exist_ok=True)
            for file, c, weight in zip(self.files, found.label.tolist(), found.weight.tolist()):
                mark = self.marks.by_file.get(file)
                own = mark is not None and bool(mark.label)
                name = mark.label if own else names[c]
                writer.writerow((file, name, "you" if own else "guess", "1" if own else f"{weight:.3f}"))
                part = "unlabeled" if not own else "test" if mark.part == "check" else "train"
                target = out.joinpath(part, *[name.replace("/", "-")] * own, file)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(self.folder / file, target)
                except OSError:
                    shutil.copy2(self.folder / file, target)
            write_file(out / "labels.csv", text.getvalue())
        except OSError as error:
            raise cannot_write(out, error) from error
        missing = [name for name in names if not (out / "test" / name.replace("/", "-")).exists()]
        if missing:
            print(f"note: no check picture is of {', '.join(missing)}: `sslkit train --data folder:` needs one of each")
        return out


def photographs(name: str, download: bool = False, most: int = 4000, test: int = 2000) -> SSLData:
    """The data set `name` (cifar10, folder:PATH ...), or `most` of its training images and `test` of its test images,
    drawn at random, always the same. Where it is not there: tiles of scikit-learn's two photographs, and a sentence."""
    try:
        data = load(name, download=download)
    except InputError as missing:
        print(f"{missing}\nUntil then the live parts of this lesson take tiles of two photographs.")
        data = load(f"folder:{sample_pictures()}", size=64)
    g = torch.Generator().manual_seed(0)
    rows, test_rows = (torch.randperm(n, generator=g)[:some].sort().values for n, some in (
        (len(data.y), most), (len(data.test_y), test)))
    return replace(data, images=data.images[rows], y=data.y[rows], test_images=data.test_images[test_rows],
                   test_y=data.test_y[test_rows], unlabeled=torch.arange(len(rows)), info={},
                   digest=digest([data.digest, rows.tolist(), test_rows.tolist()]))


def right_of(found: PseudoLabels, truth: Tensor) -> Tensor:
    """(n,) bool, for the rows whose truth (N,) is known: is the label right?"""
    return (found.label == truth)[truth >= 0]

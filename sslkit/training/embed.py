"""sslkit embed: the features of a folder of pictures, as files that `sslkit label` and other programs read."""
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np

from sslkit.data import Features, SSLData, features, load, near_copies
from sslkit.errors import require
from sslkit.files import cannot_write, write_file
from sslkit.networks import encoder as encoder_called
from sslkit.records import Progress
from sslkit.training.config import Machine

OURS = {"files.csv", "about.json", "plain.npy", "weak.npy", "strong.npy"}

EncoderName = Annotated[str, "timm:NAME, torchvision:NAME, efficientnet-lite0, or auto: timm:vit_small_patch14_dinov2 "
                             "where its weights can be had, else efficientnet-lite0"]
Size = Annotated[int | None, "pixels a side of the pictures that the encoder gets; fewer are faster (default: as it "
                             "was trained)"]
WeightsFile = Annotated[str | None, "a file of the encoder's weights (default: those that its library downloads)"]
Device = Annotated[str, "cpu, cuda, cuda:1, mps ... (auto: cuda, else mps, else cpu)"]
SkipBad = Annotated[bool, "leave out files that are no images, and count them"]


def embed(folder: str, encoder: EncoderName = "auto",
          views: Annotated[int, "weak and strong views of each picture whose features are computed too, a third of "
                                "them weak, for the labeler `head`; 0: the plain pictures alone, in a seventh of the "
                                "time"] = 6,
          size: Size = None, weights: WeightsFile = None,
          out: Annotated[str, "the folder that is written: files.csv, plain.npy (N, D), weak.npy, strong.npy (N, "
                              "views, D), float16, about.json"] = "embeddings",
          skip_bad_images: SkipBad = False, device: Device = "auto", progress: Progress | None = None) -> dict:
    """Features of all pictures in and below FOLDER, by a pre-trained encoder, with those of weak and strong views of
    them. What was computed once is found again, also after Ctrl-C.

    Returns pictures, near_copies (how many are nearly the same as an earlier one), encoder, dim, views, out and what
    load() notes. InputError for a folder, an encoder or a target that cannot be used.
    """
    target = Path(os.path.realpath(out))
    others = {path.name for path in target.glob("[!.]*")} - OURS if target.is_dir() else set()
    mixed = others or target.exists() and not target.is_dir()
    require(not mixed and target != Path.cwd(), f"{out or '.'} holds something else: give another --out")
    require(Path(folder).expanduser().is_dir(), f"there is no folder {folder}")
    new = target.with_name(f".{target.name}.new")
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, new, ignore_errors=True)
        with writing(target):                           # before all computing: it may not be possible
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        made = encoder_called(encoder, weights=weights, size=size, device=Machine(device).torch_device())
        data = load(f"pictures:{folder}", size=made.side, skip_bad_images=skip_bad_images, progress=progress)
        data = features(data, made, views=views, progress=progress)
        copies = near_copies(data.images)
        about = {"encoder": made.name, "dim": data.features.dim, "views": data.features.views, "size": made.side,
                 "folder": str(Path(folder).absolute()), "digest": data.features.digest}
        with writing(target):
            write_tables(data.features, new)
            write_file(new / "about.json", json.dumps(about, indent=2) + "\n")
            write_file(new / "files.csv", listed(data, copies.tolist()))
            shutil.rmtree(target, ignore_errors=True)
            new.rename(target)
    return {"pictures": len(data.images), "near_copies": int((copies >= 0).sum()), **about, "out": out,
            **{name: data.info.get(name, 0) for name in ("skipped", "ignored")}}


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Put an OSError into a sentence."""
    try:
        yield
    except OSError as error:
        raise cannot_write(target, error) from error


def write_tables(found: Features, folder: Path) -> None:
    """plain.npy (N, D), and (N, views, D) of each kind of view. OSError where the disk is full."""
    for kind, table in found.tables.items():
        rows = found.rows[kind]
        shape = (len(rows), *table.shape[1:]) if kind != "plain" else (len(rows), found.dim)
        array = np.lib.format.open_memmap(folder / f"{kind}.npy", "w+", np.float16, shape)
        for start in range(0, len(rows), 1000):
            part = table[rows[start:start + 1000]].numpy()
            array[start:start + 1000] = part if kind != "plain" else part[:, 0]
        array.flush()


def listed(data: SSLData, copies: list[int]) -> str:
    """files.csv: a row for each picture, its file below the folder, and the earlier file that it is a copy of, if
    any."""
    text, files = io.StringIO(), data.info["files"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "copy_of"))
    writer.writerows((file, files[copy] if copy >= 0 else "") for file, copy in zip(files, copies))
    return text.getvalue()


def embedded_in_words(info: dict) -> str:
    """What `sslkit embed` has done, in lines."""
    copies = f"; {info['near_copies']:,} are near copies of another (files.csv)" if info["near_copies"] else ""
    return (f"{info['pictures']:,} pictures, {info['dim']:,} features each by {info['encoder']} at {info['size']} px, "
            f"{info['views']} views{copies}: {info['out']}")

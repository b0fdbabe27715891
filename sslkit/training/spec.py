"""RunSpec: everything that `sslkit train` can be asked for, as plain values. The command line parses into it, batches
send it, the papers' tables compare it."""
import re
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Annotated, Any

import torch

from sslkit.data import SSLData, features, load, read_list, source, split
from sslkit.errors import require
from sslkit.files import digest
from sslkit.methods import KDFixMatch, Method, method_class
from sslkit.networks import encoder, encoder_side, weights_file
from sslkit.records import Progress
from sslkit.training.bench import timed
from sslkit.training.config import Config, Machine
from sslkit.training.identity import code_of, protocol, record, run_path, settings
from sslkit.training.loop import check_network, set_up, take_step
from sslkit.training.recipes import Live, hdl_on, hdl_record, kd_fixmatch, kd_fixmatch_record
from sslkit.training.rules import Propagate, Select, outer_method
from sslkit.training.run import Run, fit

COST = {type(None): 1.0, Select: 2.0, Propagate: 5 / 3}         # of a recipe, in runs of its method


@dataclass(frozen=True)
class DataSpec:
    """A data set, and which of its images carry labels; see data.load() and data.split()."""
    data: Annotated[str, "digits, cifar10, cifar100, svhn, fashion-mnist, stl10, food101, or folder:PATH, your own "
                         "images in train/CLASS/, test/CLASS/ and perhaps unlabeled/, or imagefolder:PATH, with val/ "
                         "in place of test/, as ImageNet (default: digits)"] = "digits"
    labels: Annotated[int, "labelled images of all classes together, as many of each class but for --imbalance "
                           "(default: 20; papers: 40, 250, 4000 on CIFAR-10)"] = 20
    imbalance: Annotated[float, "a long tail: class c of C has floor(n_max X^(-c/(C-1))) labelled and unlabelled "
                                "images, at least one labelled; -X: in reverse order. Every evaluation then has the "
                                "accuracy of each class, and of head, middle and tail, thirds of the classes (default: "
                                "1, none; papers: 50, 100, 150 on CIFAR-10; 1,500 and 3,000 images of its first class "
                                "and X 50 are --labels 4196 --unlabeled 8397)"] = 1.0
    unlabeled_imbalance: Annotated[float | None, "imbalance factor of the unlabelled images (default: the same as "
                                                 "--imbalance)"] = None
    unlabeled: Annotated[int | None, "unlabelled images in all, the labelled among them not counted (default: as many "
                                     "as there are)"] = None
    include_labeled: Annotated[bool, "keep the labelled images among the unlabelled ones (default: yes; papers: "
                                     "yes)"] = True
    labeled_list: Annotated[str | None, "a text file with the names of the labelled images, CLASS/IMAGE.JPEG or "
                                        "IMAGE.JPEG, one a line, in place of --labels and of a draw by the seed "
                                        "(default: none; papers: 1percent.txt and 10percent.txt of SimCLR on "
                                        "ImageNet)"] = None
    validation: Annotated[int, "training images held out and evaluated in the test set's place, to choose settings by "
                               "(default: 0, evaluate on the test set)"] = 0
    size: Annotated[int | None, "side in pixels of a folder's and food101's images, resized (default: 32, food101 "
                                "128); with --encoder, of the pictures that it gets (default: its own)"] = None
    crop: Annotated[int | None, "side in pixels of a random resized crop, which a weak view then is in place of a "
                                "shifted image; a strong view is RandAugment of one, and evaluation takes the central "
                                "square (default: none; papers: 224 of --size 256 on ImageNet)"] = None
    flip: Annotated[bool | None, "may a weak view mirror an image? (default: yes, but not on digits and svhn)"] = None
    root: Annotated[str | None, "where downloaded data sets lie (default: $SSLKIT_DATA or ~/.cache/sslkit)"] = None
    download: Annotated[bool, "download the data set if it is not there"] = False
    skip_bad_images: Annotated[bool, "leave out files that are no images, and count them"] = False
    encoder: Annotated[str | None, "train on features of a pre-trained encoder: timm:NAME, torchvision:NAME or "
                                   "efficientnet-lite0 (default: train on pixels)"] = None
    views: Annotated[int, "weak and strong views of each training image whose features the encoder makes, a third of "
                          "them weak (default: 6)"] = 6

    def __post_init__(self) -> None:
        require(self.crop is None or self.encoder is None, "--crop is for pixels, an encoder gets whole images: leave "
                "out --crop or --encoder")
        most = 8 if self.crop is None else max(8, self.side)
        require(self.crop is None or isinstance(self.crop, int) and 8 <= self.crop <= most, f"crop is {self.crop}, it "
                f"must be a whole number of pixels from 8 to {most}, the side of the images as loaded")
        require(self.labeled_list is None or (self.labels, self.imbalance) == (DataSpec.labels, DataSpec.imbalance),
                "--labeled-list names the labelled images: leave out --labels and --imbalance")

    @property
    def side(self) -> int:
        """Pixels a side of the images as loaded."""
        if self.size is not None:
            return self.size
        return encoder_side(self.encoder) if self.encoder else source(self.data).side

    @property
    def labeling(self) -> str:
        """How many labels, or the name of their list: for names of runs."""
        return str(self.labels) if self.labeled_list is None else Path(self.labeled_list).stem

    def listed(self) -> list[str] | None:
        """The names in the list of labelled images, if there is one. Raises InputError."""
        return None if self.labeled_list is None else read_list(self.labeled_list)

    def load(self, seed: int, loaded: dict | None = None, progress: Progress | None = None, weights: str = "none",
             strong: str | None = None, device: str | torch.device = "cpu") -> SSLData:
        """The data, split by `seed`. loaded: keeps what is read, for several splits of it. weights: the file of the
        encoder's, or none; strong: the variant of the views that it gets; device: where it computes. Raises
        InputError."""
        self.listed()                                   # a list that cannot be read is known before images are
        names = ("data", "root", "download", "size", "skip_bad_images", "encoder", "views", "flip", "crop")
        key = (*(getattr(self, name) for name in names), weights, strong, device)
        loaded = {} if loaded is None else loaded
        if key not in loaded:
            loaded[key] = self.read(progress, weights, strong, device, seed)
        return self.split(loaded[key], seed)

    def split(self, data: SSLData, seed: int) -> SSLData:
        """`data` split as asked for. Raises InputError."""
        rule = ("include_labeled", "validation", "imbalance", "unlabeled_imbalance", "unlabeled")
        names = self.listed()
        return split(data, self.labels if names is None else None, seed, labeled=names,
                     **{name: getattr(self, name) for name in rule})

    def read(self, progress: Progress | None = None, weights: str = "none", strong: str | None = None,
             device: str | torch.device = "cpu", seed: int | None = None) -> SSLData:
        """The data as load() gives it, with features if an encoder is asked for. seed: by which it will be split, if it
        will. Raises InputError, and before all computing where it cannot be split so."""
        how = {"root": self.root, "download": self.download, "skip_bad_images": self.skip_bad_images,
               "progress": progress}
        if self.encoder is None:
            data = load(self.data, size=self.size, **how)
            return replace(data, flip=data.flip if self.flip is None else self.flip, crop=self.crop)
        made = encoder(self.encoder, weights=None if weights == "none" else weights, size=self.size, device=device)
        data = load(self.data, size=made.side if source(self.data).sized else None, **how)
        data = data if self.flip is None else replace(data, flip=self.flip)
        if seed is not None:
            self.split(data, seed)
        strong = strong or ("small" if data.side < 16 else "mc")
        return features(data, made, views=self.views, strong=strong, progress=progress)


@dataclass(frozen=True)
class RunSpec:
    """A method, or a recipe around it, on a data set. `method` as `sslkit train` names it; `arguments`: its
    hyper-parameters that are not the default; recipe: a Select for kd-fixmatch, a Propagate for HDL on any other
    method."""
    method: str
    data: DataSpec = field(default_factory=DataSpec)
    train: Config = field(default_factory=Config)
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: Select | Propagate | None = None

    def __post_init__(self) -> None:
        if self.method == "kd-fixmatch" and self.recipe is None:
            object.__setattr__(self, "recipe", Select())
        require(isinstance(self.recipe, Select) == (self.method == "kd-fixmatch"),
                "a Select belongs to kd-fixmatch, a Propagate to any other method")
        method, encoded = self.make(), self.data.encoder is not None
        require(self.data.encoder != "auto", "a run names its encoder: --encoder efficientnet-lite0 or timm:NAME")
        require(not (encoded and method.pixels), f"{self.method} changes pixels, it cannot train on features: leave "
                "out --encoder, or take another method")
        require(not encoded or self.data.views != 0 or "strong" not in method.views, f"{self.method} needs strong "
                "views: compute some, with --views 6")
        require(not encoded or self.data.views >= 3 or method.views.count("weak") < 2, f"{self.method} compares two "
                "weak views of an image: compute some, with --views 6")
        require(encoded or self.data.views == 6, "--views belongs to --encoder: add it, or leave it out")
        for network in (self.train.network, getattr(self.recipe, "outer_network", None)):
            if network is not None:
                check_network(network, encoded)
        usual = method.arguments
        object.__setattr__(self, "arguments", {name: value for name, value in self.arguments.items()
                                               if name not in usual or value != usual[name]})

    @property
    def title(self) -> str:
        """The method and its recipe, as records and tables name them."""
        return self.method + "+hdl" * isinstance(self.recipe, Propagate)

    @property
    def name(self) -> str:
        """A short name that differs for specifications that differ, the same on every machine."""
        data, code = Path(self.data.data).name, digest(asdict(self))[:6]
        return re.sub(r"[^\w.+-]+", "-", f"{self.title}-{data}-{self.data.labeling}-s{self.train.seed}-{code}")

    @property
    def code(self) -> dict[str, str]:
        """The code that would train it; see identity.code_of()."""
        recipe = {Select: "kd-fixmatch", Propagate: "hdl"}.get(type(self.recipe), "")
        return code_of(self.make(**self.arguments), recipe)

    def make(self, **arguments: Any) -> Method:
        """The method, a new one. Raises InputError for arguments that cannot be used."""
        return (KDFixMatch if self.method == "kd-fixmatch" else method_class(self.method))(**arguments)

    def load(self, loaded: dict | None = None, progress: Progress | None = None,
             machine: Machine = Machine()) -> SSLData:
        """The data, split; see DataSpec.load(). An encoder computes on the machine's device. InputError also where the
        network's weights are in no file, before the data is read."""
        if not self.data.encoder:
            weights_file(self.train.weights)
        device = machine.torch_device() if self.data.encoder else "cpu"
        return self.data.load(self.train.seed, loaded, progress, self.train.weights, self.train.strong, device)

    def identity(self, data: SSLData, machine: Machine = Machine()) -> dict:
        """config.json: everything that decides the result. Raises InputError for what cannot be used."""
        method, device = self.make(**self.arguments), machine.torch_device()
        config = self.train.resolve(data, device)
        if isinstance(self.recipe, Select):
            outer = Run(self.recipe.outer) if self.recipe.outer else outer_method(method)
            outer_config = self.recipe.outer_config(self.train).resolve(data, device)
            return kd_fixmatch_record(data, method, outer, config, outer_config, self.recipe)
        if self.recipe:
            return hdl_record(method, data, config, self.recipe)
        return record(method, data, config)

    def path(self, data: SSLData, machine: Machine = Machine()) -> Path:
        """The folder in the store, a function of everything that decides the result."""
        return run_path(self.identity(data, machine))

    def run(self, data: SSLData, machine: Machine = Machine(), *, out: str | Path | None = None,
            live: Live | None = None, progress: Progress | None = None) -> Run:
        """Train it, continue it, or find it finished; raises as fit() and the recipes do. A run without a recipe is one
        stage without a name."""
        method = self.make(**self.arguments)
        how = {"out": out, "live": live, "progress": progress}
        if isinstance(self.recipe, Select):
            return kd_fixmatch(data, self.train, machine, inner=method, **vars(self.recipe), **how)
        if self.recipe:
            return hdl_on(method, data, self.train, machine, **vars(self.recipe), **how)
        steps = self.train.resolve(data, machine.torch_device()).steps
        return fit(method, data, self.train, machine, out=out, live=live and partial(live, "", steps))

    def seconds(self, data: SSLData, machine: Machine = Machine()) -> float:
        """About how long run() takes here, from the median of a few steps."""
        method, device = self.make(**self.arguments), machine.torch_device()
        config = self.train.resolve(data, device)
        nets, optimizer, feed = set_up(method, data, config, machine)
        times = [timed(partial(take_step, method, nets, optimizer, feed, step), device) for step in range(10)]
        return median(times[2:]) / 1000 * config.steps * COST[type(self.recipe)]       # the first two are slow

    def argv(self) -> list[str]:
        """The words after `sslkit` that do the same: the flags whose value is not the default."""
        usual = self.make().arguments
        changed = [(name, value, usual[name]) for name, value in self.arguments.items()]
        hdl = isinstance(self.recipe, Propagate)
        for part, prefix in ((self.data, ""), (self.train, ""), (self.recipe, "hdl_" * hdl)):
            changed += [(prefix + f.name, getattr(part, f.name), f.default) for f in (fields(part) if part else ())]
        words = ["train", self.method] + ["--hdl"] * hdl
        for name, value, default in changed:
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words += [f"--{flag}" if value else f"--no-{flag}"] * (value is not default)
            elif value != default:
                words.append(f"--{flag}={value!r}" if isinstance(value, float) else f"--{flag}={value}")
        return words

    def protocol(self) -> str:
        """protocol() of its record, computed without loading the data. Raises InputError for a list that is gone."""
        known, data, names = source(self.data.data), self.data, self.data.listed()
        like = SimpleNamespace(name=data.data, side=data.side, features=data.encoder, crop=data.crop)
        cpu, method = torch.device("cpu"), self.make(**self.arguments)
        train, arguments = settings(self.train.resolve(like, cpu)), method.arguments
        if isinstance(self.recipe, Select):
            outer = self.recipe.outer_config(self.train).resolve(like, cpu)
            first = {"method": "fixmatch", "arguments": outer_method(method).arguments, "train": settings(outer)}
            arguments = self.recipe.arguments(method, first)
        elif self.recipe:
            arguments = self.recipe.arguments(method)
        tail = data.imbalance if data.unlabeled_imbalance is None else data.unlabeled_imbalance
        return protocol({"method": self.title, "arguments": arguments, "train": train, "data": {
            "name": data.data, "labels": data.labels if names is None else len(names),
            "imbalance": [float(data.imbalance), float(tail)],
            "validation": data.validation, "include_labeled": data.include_labeled, "unlabeled_asked": data.unlabeled,
            "side": like.side, "flip": known.flip if data.flip is None else data.flip,
            **({"crop": data.crop} if data.crop else {}), **({"labeled_list": digest(names)} if names else {}),
            **({"encoder": data.encoder, "views": data.views} if data.encoder else {})}})

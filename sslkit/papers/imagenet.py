"""Table 2 of SimMatch, for whoever has the images of ImageNet: the command of each run, with the paper's settings.

FixMatch-EMAN's number of epochs is inferred from the table (1,100 with 800 of MoCo-EMAN); its code's example has 100,
with warm-up and steps at the same shares. What no setting makes as in the paper is in DIFFERS.
"""
from sslkit.errors import choose
from sslkit.training import Config, DataSpec, RunSpec

IMAGES, LABELED = 1_281_167, {1: 12_811, 10: 128_116}            # for training; labelled, a percent of them
EPOCHS = {"SimMatch": 400, "FixMatch-EMAN": 300}                  # each is all unlabelled images once
METHODS = {"SimMatch": ("simmatch", {"tau": 0.7, "lambda_u": 10.0, "lambda_in": 5.0, "da_length": 256,
                                     "memory": "teacher"}, {"schedule": "cosine", "warmup": 5 / 400}),
           "FixMatch-EMAN": ("fixmatch", {"tau": 0.7, "lambda_u": 10.0, "eman": True},
                             {"schedule": "steps", "warmup": 0.05, "strong": "fixed"})}
ALWAYS = ("the EMA network is evaluated, in the paper the student", "BatchNorm and biases do not decay",
          "the rate falls with each step, not with each epoch")
DIFFERS = {"SimMatch": (*ALWAYS, "strong views are RandAugment, in the paper colour jitter with blur"),
           "FixMatch-EMAN": (*ALWAYS, "Nesterov momentum, in the paper none")}


def imagenet(row: str, percent: int, folder: str, labeled_list: str, *, weights: str = "none",
             seed: int = 0) -> list[str]:
    """The words after `sslkit` that train SimMatch or FixMatch-EMAN on ImageNet with 1 or 10 percent of the labels.

    folder: the images, in train/CLASS/ and val/CLASS/. labeled_list: a file that names the labelled ones, as SimCLR's
    1percent.txt. weights: a file of first weights, of FixMatch-EMAN MoCo-EMAN's. InputError for another row or percent.
    """
    known = published(choose("row", row, METHODS), int(choose("percent", str(percent), map(str, LABELED))))
    data = DataSpec(f"imagefolder:{folder}", labeled_list=labeled_list, include_labeled=False, size=256, crop=224)
    train = Config(seed=seed, weights=weights, **known["train"])
    return RunSpec(METHODS[row][0], data, train, known["arguments"]).argv()


def published(row: str, percent: int) -> dict[str, dict]:
    """The paper's settings: `train` (fields of Config), the method's `arguments`, and `data`, as records have it."""
    _, arguments, schedule = METHODS[row]
    steps = EPOCHS[row] * ((IMAGES - LABELED[percent]) // (5 * 64))
    train = {"steps": steps, "batch_size": 64, "mu": 5, "lr": 0.03, "weight_decay": 1e-4, "ema_decay": 0.999,
             "bn_momentum": 0.1, "network": "resnet50", **schedule}
    return {"train": train, "arguments": arguments, "data": {"include_labeled": False, "side": 256, "crop": 224}}


def belongs(record: dict, row: str, percent: int) -> bool:
    """Is a run with this record one of the row's method on ImageNet, with as many labels? Its other settings may
    differ. FixMatch-EMAN's row begins with weights from a file, SimMatch's with none."""
    (method, arguments, _), weights = METHODS[row], record["train"].get("weights", "none").partition(":")[0]
    return (record["method"] == method and record["arguments"].get("eman") == arguments.get("eman")
            and len(record.get("classes", ())) == 1000 and record["data"]["labels"] == LABELED[percent]
            and weights == ("file" if method == "fixmatch" else "none"))

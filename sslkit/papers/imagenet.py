"""Table 2 of SimMatch, for whoever has the images of ImageNet: the command of each run, with the paper's settings.

Differs from the paper: the EMA network is evaluated, not the student; BatchNorm and biases do not decay; a rate falls
with each step, not with each epoch. SimMatch's strong views are RandAugment, the paper's a colour jitter with blur.
FixMatch-EMAN has Nesterov momentum, the paper's has none; its number of epochs is inferred from the table (1,100 with
800 of MoCo-EMAN), its code's example has 100, with warm-up and steps at the same shares.
"""
from sslkit.errors import choose
from sslkit.training import Config, DataSpec, RunSpec

IMAGES, LABELED = 1_281_167, {1: 12_811, 10: 128_116}            # for training; labelled, a percent of them
EPOCHS = {"SimMatch": 400, "FixMatch-EMAN": 300}                  # each is all unlabelled images once
METHODS = {"SimMatch": ("simmatch", {"tau": 0.7, "lambda_u": 10.0, "lambda_in": 5.0, "da_length": 256,
                                     "memory": "teacher"}, {"schedule": "cosine", "warmup": 5 / 400}),
           "FixMatch-EMAN": ("fixmatch", {"tau": 0.7, "lambda_u": 10.0, "eman": True},
                             {"schedule": "steps", "warmup": 0.05, "strong": "fixed"})}


def imagenet(row: str, percent: int, folder: str, labeled_list: str, *, weights: str = "none",
             seed: int = 0) -> list[str]:
    """The words after `sslkit` that train SimMatch or FixMatch-EMAN on ImageNet with 1 or 10 percent of the labels.

    folder: the images, in train/CLASS/ and val/CLASS/. labeled_list: a file that names the labelled ones, as SimCLR's
    1percent.txt. weights: a file of first weights, of FixMatch-EMAN MoCo-EMAN's. InputError for another row or percent.
    """
    method, arguments, schedule = METHODS[choose("row", row, METHODS)]
    labels = LABELED[int(choose("percent", str(percent), map(str, LABELED)))]
    steps = EPOCHS[row] * ((IMAGES - labels) // (5 * 64))
    train = Config(seed=seed, steps=steps, batch_size=64, mu=5, lr=0.03, weight_decay=1e-4, ema_decay=0.999,
                   bn_momentum=0.1, network="resnet50", weights=weights, **schedule)
    data = DataSpec(f"imagefolder:{folder}", labeled_list=labeled_list, include_labeled=False, size=256, crop=224)
    return RunSpec(method, data, train, arguments).argv()

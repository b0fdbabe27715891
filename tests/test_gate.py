"""The gate: with 20 labels of the real digits, unlabelled images still help. Bounds stand well below what was measured."""
from statistics import mean

import pytest

from sslkit.data.sources import load
from sslkit.data.split import split
from sslkit.methods import FixMatch, FreeMatch, SimMatch, Supervised
from sslkit.training.config import Config, Machine
from sslkit.training.run import fit


def accuracy(kind, seed, **config):
    """In percent, of the test images, at the last step."""
    config = Config(seed=seed, **config)
    return 100 * fit(kind(), split(load("digits"), 20, seed), config, Machine(device="cpu", threads=1)).result["test_acc"]


def test_fixmatch_beats_supervised_by_10_points_within_600_steps(runs):
    """Measured on seeds 0, 1 and 2: by 14.0, 12.5 and 20.0 points; without the unlabelled loss 6.8, 1.0 and 0.5."""
    supervised, fixmatch = (accuracy(kind, 0, steps=600, eval_every=600) for kind in (Supervised, FixMatch))
    assert fixmatch >= supervised + 10, f"FixMatch {fixmatch:.1f}%, Supervised {supervised:.1f}%"


@pytest.mark.slow
@pytest.mark.parametrize("kind, low, high", [(FixMatch, 88, 100), (SimMatch, 88, 100), (FreeMatch, 88, 100), (Supervised, 0, 82)])
def test_mean_accuracy_of_three_seeds(runs, kind, low, high):
    """2,000 steps. Measured means: FixMatch 92.8, SimMatch 95.2, FreeMatch 96.4, Supervised 75.0."""
    found = [accuracy(kind, seed) for seed in range(3)]
    assert low <= mean(found) <= high, f"{kind.__name__}: {mean(found):.1f}%, of {found}"

"""A toy in the plane: points of two moons, a few of them labelled, and a small network whose boundary one can see."""
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVERY, WEAK, STRONG, TAU = 40, 0.05, 0.2, 0.95     # steps between two maps; sizes of the views' shifts; FixMatch's tau


class Plane(NamedTuple):
    """A network's training in the plane, seen every EVERY steps."""
    points: Tensor           # (n, 2)
    y: Tensor                # (n,) classes 0 and 1
    labeled: Tensor          # (m,) rows
    sides: tuple[Tensor, Tensor]          # x and y of the maps
    maps: list[Tensor]       # each (len(y), len(x)): the probability of class 1
    right: list[float]       # share of all points that the network has right


def two_moons(draw: int, labels: int = 4, n: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """n points of two moons (n, 2), their classes (n,), and the rows of `labels` labelled points of each, all from the
    seed `draw`."""
    from sklearn.datasets import make_moons

    points, y = map(torch.as_tensor, make_moons(n, noise=0.1, random_state=draw))
    g = torch.Generator().manual_seed(draw)
    rows = [(y == c).nonzero()[:, 0] for c in (0, 1)]
    return points.float(), y, torch.cat([row[torch.randperm(len(row), generator=g)[:labels]] for row in rows])


def learn_plane(draw: int, unlabeled: bool, steps: int = 1000) -> Plane:
    """Train a network on two_moons(draw): on the labelled points alone, or as FixMatch does on all of them. A weak view
    moves a point a little, a strong view moves it further."""
    points, y, labeled = two_moons(draw)
    g = torch.Generator().manual_seed(draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw)
        network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    sides = torch.linspace(-1.6, 2.6, 85), torch.linspace(-1.1, 1.6, 55)
    grid = torch.cartesian_prod(*sides)
    seen = Plane(points, y, labeled, sides, [], [])

    def moved(x: Tensor, size: float) -> Tensor:
        return x + size * torch.randn(x.shape, generator=g)

    for step in range(steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                seen.maps.append(network(grid).softmax(1)[:, 1].view(len(sides[0]), len(sides[1])).T)
                seen.right.append((network(points).argmax(1) == y).float().mean().item())
        loss = F.cross_entropy(network(moved(points[labeled], WEAK)), y[labeled])
        if unlabeled:
            with torch.no_grad():
                confidence, guess = network(moved(points, WEAK)).softmax(1).max(1)
            each = F.cross_entropy(network(moved(points, STRONG)), guess, reduction="none")
            loss = loss + (each * (confidence >= TAU)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return seen

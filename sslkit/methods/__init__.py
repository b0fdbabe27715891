"""The methods, one paper a file. A new method is a file and its class in ALL."""
from sslkit.errors import choose
from sslkit.methods.base import Method
from sslkit.methods.comatch import CoMatch
from sslkit.methods.dash import Dash
from sslkit.methods.fixed_labels import FixedLabels
from sslkit.methods.fixmatch import FixMatch
from sslkit.methods.freematch import FreeMatch
from sslkit.methods.kd_fixmatch import KDFixMatch
from sslkit.methods.mean_teacher import MeanTeacher
from sslkit.methods.mixmatch import MixMatch
from sslkit.methods.ops import align
from sslkit.methods.pi_model import PiModel
from sslkit.methods.pseudo_label import PseudoLabel
from sslkit.methods.remixmatch import ReMixMatch
from sslkit.methods.simmatch import SimMatch, aggregate, unfold
from sslkit.methods.supervised import Supervised
from sslkit.methods.uda import UDA
from sslkit.methods.vat import VAT

ALL: tuple[type[Method], ...] = (
    Supervised, PiModel, PseudoLabel, MeanTeacher, VAT, UDA, MixMatch, ReMixMatch, FixMatch, Dash, FreeMatch, CoMatch,
    SimMatch, KDFixMatch, FixedLabels)
BY_NAME = {method.__name__.lower(): method for method in ALL}


def method_class(name: str) -> type[Method]:
    """The class called `name`, in lower case. InputError with the nearest name where there is none."""
    return BY_NAME[choose("method", name, BY_NAME)]

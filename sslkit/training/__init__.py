"""Training: what is asked (spec, config), the loop and its feed, one run on disk (run), what names it (identity), all
of them (runs)."""
from sslkit.files import store
from sslkit.training import metrics
from sslkit.training.config import Config, Machine
from sslkit.training.embed import embed, embedded_in_words
from sslkit.training.feed import Feed
from sslkit.training.head import head, head_of
from sslkit.training.identity import CORE, RECIPE_CODE, code_of, is_earlier, protocol, record, run_path
from sslkit.training.loop import evaluate, predict, set_up, take_step, train
from sslkit.training.parse import begun, method_names, parse
from sslkit.training.probe import probe, probes
from sslkit.training.recipes import hdl_on, kd_fixmatch, labels_found, labels_in_words, quality
from sslkit.training.rules import Propagate, Select
from sslkit.training.run import Run, Stopped, fit, has_result
from sslkit.training.runs import all_runs, finished, newest, note_earlier, summary
from sslkit.training.spec import DataSpec, RunSpec

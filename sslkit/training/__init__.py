"""Training: what is asked (spec, config), the loop and its feed, one run on disk (run), what names it (identity), all
of them (runs)."""
from sslkit.training import metrics
from sslkit.training.config import Config, Machine
from sslkit.training.feed import Feed
from sslkit.training.identity import CORE, RECIPE_CODE, code_of, is_earlier, protocol, record, run_path, store
from sslkit.training.loop import evaluate, predict, set_up, take_step, train
from sslkit.training.parse import method_names, parse
from sslkit.training.recipes import hdl_on, kd_fixmatch, labels_found, labels_in_words, quality
from sslkit.training.rules import Propagate, Select
from sslkit.training.run import Run, Stopped, fit, has_result
from sslkit.training.runs import all_runs, finished, newest, note_earlier, summary
from sslkit.training.spec import DataSpec, RunSpec

__all__ = ["CORE", "RECIPE_CODE", "Config", "DataSpec", "Feed", "Machine", "Propagate", "Run", "RunSpec", "Select", "Stopped", "all_runs", "code_of",
           "evaluate", "finished", "fit", "has_result", "hdl_on", "is_earlier", "kd_fixmatch", "labels_found", "labels_in_words", "method_names",
           "metrics", "newest", "note_earlier", "parse",
           "predict", "protocol", "quality", "record", "run_path", "set_up", "store", "summary", "take_step", "train"]

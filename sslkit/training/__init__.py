"""Training: what a run is (spec, config), the loop and its feed, one run on disk (run), what names it (identity), all of them (runs)."""
from sslkit.training.config import Config, Machine
from sslkit.training.feed import Feed
from sslkit.training.identity import code_version, protocol, record, run_path, store
from sslkit.training.loop import evaluate, predict, set_up, take_step, train
from sslkit.training.recipes import Plan, hdl_on, kd_fixmatch, labels_found
from sslkit.training.run import Run, Stopped, fit, has_result
from sslkit.training.runs import all_runs, finished
from sslkit.training.spec import CODE_OF, Job, distinct

__all__ = ["CODE_OF", "Config", "Feed", "Job", "Machine", "Plan", "Run", "Stopped", "all_runs", "code_version", "distinct", "evaluate",
           "finished", "fit", "has_result", "hdl_on", "kd_fixmatch", "labels_found", "predict", "protocol", "record", "run_path",
           "set_up", "store", "take_step", "train"]

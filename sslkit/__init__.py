"""sslkit: see, train and measure semi-supervised image classification.

    from sslkit import Config, FixMatch, fit, load, split
    run = fit(FixMatch(), split(load("digits"), labels=20), Config(seed=1))

The rooms, each a file: records (what passes between them), data and folder (images), splits (which of them carry labels), augment (weak and
strong views) over imageops (Pillow's operations on batches), nets (networks, student and teacher), methods/ (one paper a file) over ops
(tensor maths they share), labelers (pseudo-labels by confidence and clusters) and hdl (from embeddings) over neighbors, label (files in,
file out), train (the loop), runs (a run on disk) over files (whole files or none), recipes (training in stages), metrics, plots, widgets,
notebook (what lessons share), studies (the tables they keep), batch with lesson, execute (one notebook) and report (the lessons from end to
end, and the page they leave), papers (their tables, ours beside them) over jobs (a run as plain values) and scales, engine (jobs on many
processes) over cluster, work, task and lease, watch (what is at work in a store), bench (what a step costs), cli over terminal, errors.
"""
__version__ = "0.1.0"

_NAMES = {**dict.fromkeys(("InputError",), "errors"), **dict.fromkeys(("PseudoLabels",), "records"),
          **dict.fromkeys(("SSLData", "load", "split"), "data"), **dict.fromkeys(("Nets", "build"), "networks"),
          **dict.fromkeys(("Method", "Supervised", "MixMatch", "ReMixMatch", "FixMatch", "FreeMatch", "SimMatch", "KDFixMatch"), "methods"),
          **dict.fromkeys(("cluster_agree", "confident", "hdl", "one_shot"), "labelers"),
          **dict.fromkeys(("Config", "Feed", "Machine", "Run", "all_runs", "evaluate", "fit", "hdl_on", "kd_fixmatch", "predict"), "training")}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str):
    """Public names are imported when first asked for: `sslkit --help` should not wait for torch."""
    import importlib

    if name not in _NAMES:
        raise AttributeError(f"module 'sslkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sslkit.{_NAMES[name]}"), name)

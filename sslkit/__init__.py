"""sslkit: see, train and measure semi-supervised image classification.

    from sslkit import Config, FixMatch, fit, load, split
    run = fit(FixMatch(), split(load("digits"), labels=20), Config(seed=1))

The rooms, each importing only from those above it:

    errors, records, files, terminal, processes   for every room: messages, what is passed between rooms, safe writes,
                 the parser, the processes of a run
    data/        images in: load(), split(), weak and strong views, features of an encoder
    networks/    backbones, build(), student and EMA teacher, encoder()
    methods/     one paper a file, over base (the contract) and ops
    labelers/    labels without training: by confidence, clusters or neighbours, and how good they are
    training/    what a run is, the loop, a run on disk and what names it, recipes of several runs
    papers/      the papers' tables, ours beside them
    batch/       many runs and notebooks at a time, and the page they leave
    lessons/     what notebooks import: session, plots, widgets, exercises, studies, a folder of photographs
    cli/         the command line
"""
__version__ = "0.1.0"

_NAMES = {room: names.split() for room, names in {
    "errors": "InputError", "records": "PseudoLabels", "data": "Encoder SSLData augment features load split",
    "networks": "Nets build encoder",
    "methods": "Method Supervised PiModel PseudoLabel MeanTeacher VAT UDA MixMatch ReMixMatch FixMatch Dash FreeMatch "
               "CoMatch SimMatch KDFixMatch",
    "labelers": "cluster_agree confident hdl one_shot",
    "training": "Config Feed Machine Run all_runs embed evaluate fit hdl_on kd_fixmatch metrics predict probe",
    "lessons": "plots studies"}.items()}
_ROOM_OF = {name: room for room, names in _NAMES.items() for name in names}
__all__ = ["__version__", *_ROOM_OF]


def __getattr__(name: str):
    """Public names are imported when first asked for: `sslkit --help` should not wait for torch."""
    import importlib

    if name not in _ROOM_OF:
        raise AttributeError(f"module 'sslkit' has no attribute {name!r}")
    room = importlib.import_module(f"sslkit.{_ROOM_OF[name]}")
    return getattr(room, name)

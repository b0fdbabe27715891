"""The tables that lessons keep: several variants with several seeds, each trained once, and a row of numbers for each.
`sslkit study NAME` makes them.

Runs that the store has are found. So a study continues where it was stopped, and two that share runs train them once.
Each study takes `source`, the data set, digits unless another is given: features of photographs too.
"""
from sslkit.lessons.studies.family import equal_seconds, hardships, same_moment
from sslkit.lessons.studies.fixmatch import (
    fixmatch_parts,
    fixmatch_strength,
    methods_compared,
    thresholds_compared,
)
from sslkit.lessons.studies.hdl import hdl_evaluations, hdl_gains, three_labels
from sslkit.lessons.studies.kd_fixmatch import (
    WEAK_LABELS,
    kd_clusterings,
    kd_encoders,
    kd_labels,
    kd_methods,
    kd_mistakes,
    kd_noise,
    kd_thresholds,
    weak_outer,
)
from sslkit.lessons.studies.simmatch import simmatch_sweep
from sslkit.lessons.studies.tools import labeled

STUDIES = {
    "fixmatch_parts": fixmatch_parts, "fixmatch_strength": fixmatch_strength, "methods": methods_compared,
    "thresholds": thresholds_compared, "hardships": hardships, "equal_seconds": equal_seconds,
    "simmatch_sweep": simmatch_sweep, "kd_fixmatch_methods": kd_methods, "kd_fixmatch_noise": kd_noise,
    "kd_fixmatch_mistakes": kd_mistakes, "kd_fixmatch_thresholds": kd_thresholds,
    "kd_fixmatch_labels": kd_labels, "kd_fixmatch_clusterings": kd_clusterings, "kd_fixmatch_encoders": kd_encoders,
    "hdl_gains": hdl_gains, "hdl_evaluations": hdl_evaluations}

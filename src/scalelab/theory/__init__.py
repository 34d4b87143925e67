"""Formulas of scaling and waiting, each with its units, domain and source; numbers or NumPy arrays in, the same out."""

from scalelab.theory._domain import OutOfDomain
from scalelab.theory.fits import Fit, TooFewPoints, UslFit, fit_amdahl, fit_usl
from scalelab.theory.laws import amdahl, gustafson, in_flight, throughput_ceiling, usl, usl_peak
from scalelab.theory.queues import (
    allen_cunneen_wait,
    erlang_b,
    erlang_c,
    kingman_wait,
    md1_wait,
    mm1_percentile,
    mm1_time,
    mmc_percentile,
    mmc_time,
    mmc_wait,
    mmc_wait_percentile,
)

__all__ = [
    "Fit",
    "OutOfDomain",
    "TooFewPoints",
    "UslFit",
    "allen_cunneen_wait",
    "amdahl",
    "erlang_b",
    "erlang_c",
    "fit_amdahl",
    "fit_usl",
    "gustafson",
    "in_flight",
    "kingman_wait",
    "md1_wait",
    "mm1_percentile",
    "mm1_time",
    "mmc_percentile",
    "mmc_time",
    "mmc_wait",
    "mmc_wait_percentile",
    "throughput_ceiling",
    "usl",
    "usl_peak",
]

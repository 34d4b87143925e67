"""Formulas of scaling, waiting and caching, each with units, domain and source, for numbers or arrays."""

from scalelab.theory._domain import OutOfDomain
from scalelab.theory.caching import (
    che_hit_rate,
    che_time,
    fifo_hit_rate,
    static_hit_rate,
    ttl_hit_rate,
    ttl_stale_share,
    zipf_popularity,
)
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
    "che_hit_rate",
    "che_time",
    "erlang_b",
    "erlang_c",
    "fifo_hit_rate",
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
    "static_hit_rate",
    "throughput_ceiling",
    "ttl_hit_rate",
    "ttl_stale_share",
    "usl",
    "usl_peak",
    "zipf_popularity",
]

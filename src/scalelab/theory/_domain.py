"""Arguments and results of all formulas: convert numbers and arrays, check the domain, return the same type."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scalelab.errors import ScalelabError

Floats: TypeAlias = NDArray[np.float64]
ScalarOrArray: TypeAlias = Any  # a float, or an array of floats if an argument is an array

UTILISATION = "utilisation in [0, 1)"
OVERLOAD = (
    " A queue that gets as much work as its servers can do, or more, grows without end and has no mean: "
    "lower the arrival rate, shorten the service or add servers."
)


class OutOfDomain(ScalelabError, ValueError):
    """A formula was called with a value outside its domain."""


def floats(value: ArrayLike) -> Floats:
    """Return `value` as an array of floats, without dimensions for a single number."""
    return np.asarray(value, dtype=np.float64)


def unwrap_scalar(result: ArrayLike) -> ScalarOrArray:
    """Return an array without dimensions as a float, any other array unchanged."""
    return float(np.asarray(result)) if np.ndim(result) == 0 else result


def require(condition: Any, value: Floats, expected: str, advice: str = "") -> None:
    """Raise OutOfDomain with the first element of `value` for which `condition` is false, if there is one."""
    violations = ~np.asarray(condition, dtype=bool)
    if violations.any():
        raise OutOfDomain(f"Expected {expected}; got {float(value[violations].flat[0]):g}.{advice}")


def check_utilisation(value: ArrayLike) -> Floats:
    """Return utilisations as an array. Raises OutOfDomain outside [0, 1)."""
    rho = floats(value)
    require((rho >= 0) & (rho < 1), rho, UTILISATION, OVERLOAD)
    return rho


def check_non_negative(value: ArrayLike, name: str) -> Floats:
    """Return finite numbers >= 0 as an array. Raises OutOfDomain."""
    array = floats(value)
    require((array >= 0) & np.isfinite(array), array, f"{name} >= 0")
    return array


def check_positive(value: ArrayLike, name: str) -> Floats:
    """Return finite numbers > 0 as an array. Raises OutOfDomain."""
    array = floats(value)
    require((array > 0) & np.isfinite(array), array, f"{name} > 0")
    return array


def check_share(value: ArrayLike, name: str) -> Floats:
    """Return numbers in [0, 1] as an array. Raises OutOfDomain."""
    array = floats(value)
    require((array >= 0) & (array <= 1), array, f"{name} in [0, 1]")
    return array


def check_whole(value: ArrayLike, name: str) -> Floats:
    """Return whole numbers >= 1 as an array of floats. Raises OutOfDomain."""
    array = floats(value)
    require((array >= 1) & np.isfinite(array) & (array == np.floor(array)), array, f"{name}, a whole number >= 1")
    return array


def percent_to_share(value: ArrayLike) -> Floats:
    """Return percentiles in [0, 100) as shares in [0, 1). Raises OutOfDomain."""
    array = floats(value)
    require((array >= 0) & (array < 100), array, "a percentile in [0, 100)", " Write 99 for p99.")
    share: Floats = array / 100
    return share

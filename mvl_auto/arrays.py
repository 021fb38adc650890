"""Names of the kinds of arrays and boxes that travel through the package: one for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]  # images, probabilities
Classes = NDArray[np.int16]  # label maps of consecutive classes, and IGNORE
Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]
Box = tuple[tuple[int, int], ...]  # start and stop per axis

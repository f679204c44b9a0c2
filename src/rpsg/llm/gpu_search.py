"""Exact nearest neighbours on a GPU: what the vote computes on the processor, faster, the same."""

import numpy as np
import numpy.typing as npt

from rpsg.llm.device import explain_full_memory, resolve_device
from rpsg.types import Device, FloatArray

# Products that are in the GPU's memory at a time, 8 bytes each.
_PRODUCTS = 2**27
# With fewer products than this the processor is done before torch is loaded.
_WORTHWHILE = 2**27


class GpuSearch:
    """Finds the items with the largest products in double precision.

    Items and queries are whole numbers on a grid, and sums of their products are below 2^53: every order of
    summation gives the same, on a GPU as on the processor.
    """

    def __init__(self, items: npt.NDArray[np.float64], *, grid: float) -> None:
        """Puts the items on the GPU.

        Args:
            items: on the grid, shape (m, d).
            grid: steps in a length of 1.
        """
        import torch

        with explain_full_memory("votes", lower="Ask for fewer texts"):
            self._columns = torch.from_numpy(items).cuda().T
        self._grid = grid
        self.block = max(1, _PRODUCTS // len(items))

    def nearest(self, vectors: FloatArray) -> npt.NDArray[np.int64]:
        """Returns the index of each vector's nearest item; ties go to the lowest.

        Args:
            vectors: unit vectors, not yet on the grid, shape (n, d), n at most `block`.
        """
        import torch

        with explain_full_memory("votes", lower="Ask for fewer texts"):
            queries = torch.from_numpy(np.ascontiguousarray(vectors)).cuda().double()
            products = (queries * self._grid).round() @ self._columns
            found: npt.NDArray[np.int64] = products.argmax(dim=1).cpu().numpy()
            return found


def pays(n_queries: int, n_items: int, device: Device) -> bool:
    """Says whether to search on a GPU.

    Args:
        n_queries: vectors.
        n_items: that they are compared with.
        device: that computes; auto is a GPU where there is one.

    Raises:
        ConfigError: `cuda` is wanted and there is none.
    """
    large = n_queries * n_items >= _WORTHWHILE
    return large and device != "cpu" and resolve_device(device) == "cuda"

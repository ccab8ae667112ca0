"""Where the engine cannot run, its tests are skipped, with the reason.

Without a GPU, TRITON_INTERPRET=1 runs the kernels on CPU tensors (`make test-triton`).
"""

from __future__ import annotations

import os

import pytest

from qstore_torch.triton import why_not

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def skip_where_it_cannot_run():
    """To be called by a module before it imports the engine."""
    if reason := why_not():
        pytest.skip(f"the triton engine: {reason}", allow_module_level=True)

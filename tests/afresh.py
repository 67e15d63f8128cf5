"""What a folder gives in a process of its own, which knows nothing but the file system."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def in_a_new_process(code, *given):
    """Run code that reads its words by `given`, and return the array that it leaves as `out`."""
    out = Path(given[0]).with_name("out.npy")
    lines = ["import sys", "import numpy", "import torch", "given = sys.argv[2:]", code]
    lines.append("numpy.save(sys.argv[1], torch.as_tensor(out).detach().numpy())")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), out, *map(str, given)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.load(out)

"""What the tests of denoisers share: tiny ones, one whose answers are known, and rows of three classes."""

import math

import numpy as np
import torch

CENTRES = np.array([[-0.8, -0.4], [0.8, -0.4], [0.0, 0.9]])
SPREAD = 0.1


class Tiny(torch.nn.Module):
    """A trainable denoiser of rows of a few numbers."""

    def __init__(self, classes=3, width=16, size=2):
        super().__init__()
        self.classes, self.settings = classes, {"classes": classes, "width": width, "size": size}
        self.of_label = torch.nn.Embedding(classes + 1, 4)
        self.into, self.inner = torch.nn.Linear(size + 4 + 3, width), torch.nn.Linear(width, width)
        self.out = torch.nn.Linear(width, size)

    def forward(self, x, level, label, guidance):
        angle = level[:, None] * (math.pi / 2)
        read = [x, angle.cos(), angle.sin(), guidance[:, None], self.of_label(label)]
        return self.out(torch.nn.functional.silu(self.inner(torch.nn.functional.silu(self.into(torch.cat(read, 1))))))


class Exact(torch.nn.Module):
    """The best denoiser of classes that are normal about their centres, and of 0 for none, all of one spread."""

    classes = 3

    def forward(self, x, level, label, guidance):
        centres = torch.from_numpy(np.vstack([CENTRES, np.zeros(2)])).to(x)[label]
        angle = level[:, None] * (math.pi / 2)
        cos, sin = angle.cos(), angle.sin()
        gain = cos * SPREAD**2 / (cos**2 * SPREAD**2 + sin**2)
        mean = centres + gain * (x - cos * centres)  # of what is below the noise
        return cos * (x - cos * mean) / sin - sin * mean


def rows(count=60, seed=0):
    """Rows about three centres, and their classes."""
    label = np.arange(count) % 3
    return CENTRES[label] + SPREAD * np.random.default_rng(seed).normal(size=(count, 2)), label


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return Tiny(**changes).eval()

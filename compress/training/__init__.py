"""The one loop: a student, its objectives and, where they need one, its teacher.

`loop` trains, `kept` is what lies beside a checkpoint.
"""

from compress.training.loop import train

__all__ = ["train"]

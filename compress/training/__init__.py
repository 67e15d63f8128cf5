"""The one loop: a student, its objectives and, where they need one, its teacher.

`loop` trains on texts, and `trainer`, by which it does, on rows of anything; `settings` says how,
`gradients` and `masks` which of them reach the weights, `replaced_words` which words are read as others,
`shares` in which order rows come, `checkpoints` from where it goes on, `kept` is what lies beside a
checkpoint, `minmax` which step of a robust training is kept, `sharded` a student in shards on several
processes, `inside` is a training inside a verb.
"""

from compress.training.loop import train
from compress.training.minmax import MinmaxValidation
from compress.training.settings import TrainingSettings

__all__ = ["MinmaxValidation", "TrainingSettings", "train"]

"""Numbers that both a command's help and the plan need: no import but this one is so light."""

from __future__ import annotations

WARMUP_ITERATIONS = 25
MEASURED_ITERATIONS = 300
# The functions' pass only has to say how a module's self time divides among the functions
# it calls, so it needs fewer iterations than the times themselves.
FUNCTION_ITERATIONS = 30
# A leaf alone is so steady when hot that few calls tell it. Before a cold one a buffer larger than
# the last-level cache is read, which takes longer than most leaves.
HOT_CALLS = 30
COLD_CALLS = 10
# A run that goes on until its interval is narrow gives up at this multiple of the planned
# iterations unless the plan names a cap.
CAP_FACTOR = 10
# A training step takes three to four times as long as a forward, and its phases are longer than
# layers: fewer rounds tell as much.
TRAINING_WARMUP = 5
TRAINING_ITERATIONS = 50
# Of an image of a data set: what PIL warns beyond. Decoded it takes a quarter of a GiB, and reading
# and resizing it some four times that.
MOST_PIXELS = 89_478_485
# Of fewer rounds the interval is that of all rounds, and a live comparison says nothing.
FEWEST_ROUNDS = 10

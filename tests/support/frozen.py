"""Takes all that the server has imported out of the garbage collector, when it is imported itself.

A forked process would look through it and so copy its memory: half a second of the processor's time.
"""

import gc

gc.collect()
gc.freeze()

"""How often this process looks for cyclic garbage. Called once by each process that serves HTTP or runs steps, when all its parts are built."""

import gc

_NEW_OBJECTS = 20_000


def collect_seldom() -> None:
    """Leave what the program itself consists of out of every search, and search less often than a script has to.

    Requests leave few cycles behind; looking through hundreds of thousands of objects that live as long as the process was
    a quarter of what a call cost (docs/architecture.md).
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)

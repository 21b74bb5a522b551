"""Errors of the worker room.

AIGatewayError (engine.errors)
└── FatalError
    └── ProcessSuperseded   this process was declared dead while it lived; its steps belong to others now
"""

from engine.errors import FatalError


class ProcessSuperseded(FatalError):
    """This process's lease ran out and its steps were taken back."""

    def __init__(self) -> None:
        super().__init__("process_superseded", "the lease ran out and other workers took over")

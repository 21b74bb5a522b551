"""The program: command line, settings and wiring (the composition root)."""

__version__ = "0.1.0"

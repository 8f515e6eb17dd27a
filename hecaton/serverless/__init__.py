"""Runs your handler inside your image. Standard library only, Python 3.8 and newer."""

from hecaton.serverless.job import ServerLessInput
from hecaton.serverless.loop import progress, start

__all__ = ["ServerLessInput", "progress", "start"]

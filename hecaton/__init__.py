"""Self-hosted GPU access. Only the version lives here: this file runs before `hecaton.serverless` in every container."""

__version__ = "2.0.0"

"""Self-hosted GPU access. Only the version lives here: it runs before `hecaton.serverless` in every container."""

__version__ = "2.0.0"

"""Session observability for real-time video sessions with a digital person."""

__version__ = "0.1.0"

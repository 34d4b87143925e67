"""The instruments of *Scalable Python, Measured*: what chapters and exercises import."""

__version__ = "0.1.0"

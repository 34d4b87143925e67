"""The instruments of *Scalable Python, Measured*: what chapters and exercises import.

`__init__.pyi` names them. Each is imported on first use: drawing takes 0.6 s to import, and grading starts many
kernels that never draw.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Deep linear networks beyond the edge of stability: plain functions on arrays, one concept per module.

Modules are imported by name (``from eoslib import network, descent``); the package imports nothing by itself.
"""

__version__ = "0.1.0"

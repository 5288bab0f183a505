"""The embedded exchange: Binance's spot protocol over TLS on loopback, for demos, replays and tests.

A process of its own: `python -m quantai_tui.exchange`, or `process.run`. Its market (`markets.Market`) is synthetic or replayed.
"""

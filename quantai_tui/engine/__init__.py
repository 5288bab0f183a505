"""The engine: stream, store, training and embedded exchange under one owner, and the socket by which dashboards reach it.

Import from the modules: `engine.engine` (the engine itself), `engine.local` (in process), `engine.launch` (in a process of its
own; light to import), `engine.host` (as this process), `engine.source` (where data comes from).
"""

"""Command line, environment and JSON config become one validated, frozen `Settings`.

`load.py` is the way in; `values.py` and `exchange.py` say what comes out; `options.py` and `keys.py` describe every
option and key, and are what the documentation is made from; `layers.py` says which place wins. Nothing is imported
here: `--version` must not wait for pydantic.
"""

"""An Exchange server and a platform to run against: for the demo, for tests and for benchmarks.

Nothing in here imports the client's code, so that the two cannot share a misreading of the protocol.
"""

"""The platform as a sink: its HTTP interface, uploads into buckets, and checkpoints as keyed sync states."""

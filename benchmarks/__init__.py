"""Measurements, run by hand with `make bench`. Figures are for comparing what stands side by side in one run."""

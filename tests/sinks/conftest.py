from hypothesis import settings

# Machines that build are slow at times; what is slow is found by benchmarks.
settings.register_profile("sinks", deadline=None)
settings.load_profile("sinks")

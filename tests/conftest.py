"""What holds for all tests."""

import os

from hypothesis import HealthCheck, settings

# the tests run side by side, a core for each: before anything imports torch
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# no test depends on how busy the machine is
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

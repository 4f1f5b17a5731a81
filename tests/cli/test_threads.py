"""How threads wait: said to the library before it is loaded, unless the user has said it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@pytest.mark.parametrize(("given", "expected", "spins"), [(None, "PASSIVE", True), ("ACTIVE", "ACTIVE", False)])
def test_threads_that_wait_leave_their_cores_soon(given: str | None, expected: str, spins: bool) -> None:
    """The OpenMP library that torch brings tells what it has read as it was loaded."""
    environment = {name: value for name, value in os.environ.items() if name not in SAID}
    environment |= {
        "OMP_NUM_THREADS": "1",  # doctor measures, and threads that wait actively would take a core each
        "OMP_DISPLAY_ENV": "verbose",
        **({"OMP_WAIT_POLICY": given} if given else {}),
    }
    command = [sys.executable, "-m", "latentart", "doctor", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=True)

    if "OMP_WAIT_POLICY" not in done.stderr:
        pytest.skip("this OpenMP library shows no settings")
    assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr
    assert ("GOMP_SPINCOUNT = '1000'" in done.stderr) == spins

"""What we ask of ourselves beside other systems: diffusers, lucidrains' packages, Pillow, and the machine's own limits.

`python -m pytest -n 0 -m peers -s tests/peers` measures all and holds the bars, which are the assertions of its tests.
It takes hours, so name one: `tests/peers/test_ldm.py::test_quality`. It needs the extra `peers`; what is not installed
is skipped. The suite leaves all of that out; the small tests of the pieces, which have no bar, are part of it.

Environment variables say the rest, as pytest takes options of its own from a folder only where that is named:

    PEERS_OUT=FOLDER        one JSON file per test, with every number and what it was measured on
    PEERS_QUICK=1           a look: few pictures, short trainings; no bar is held, so each test ends as skipped
    PEERS_PICTURES=FOLDER   pictures of your own for test_vae.py::test_quality and all of test_ldm.py but speed
    PEERS_SECONDS=120       training of each denoiser in test_ldm.py; hard pictures want more
    PEERS_MODEL=FOLDER      a model folder for test_sample.py, else random weights
    PEERS_DEVICE, PEERS_PRECISION   else the best device, and auto

The modules are a package, `peers`, found by `pythonpath` in pyproject.toml; scripts put `tests` on their path.
"""

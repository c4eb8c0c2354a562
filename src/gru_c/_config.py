"""The version, and what this installation runs on."""

import ctypes
import sys

__version__ = "0.1.0"


def _blas() -> dict:
    """Name, version and threads of the BLAS behind scipy.linalg.cython_blas."""
    import scipy
    from scipy.linalg import cython_blas

    found = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    library = ctypes.CDLL(cython_blas.__file__)            # a look-up goes on to what it links to
    threads = None
    for name in ("scipy_openblas_get_num_threads", "openblas_get_num_threads",
                 "MKL_Get_Max_Threads"):
        if hasattr(library, name):
            threads = getattr(library, name)()
            break
    return {"name": found["name"], "version": found["version"], "threads": threads}


def config() -> dict:
    """What `show_config` prints, as a dict."""
    import numpy
    import scipy

    from gru_c import _core

    blas = _blas()
    return {
        "gru_c": __version__,
        "instruction set": _core.isa,
        "instruction sets": ", ".join(_core.dispatch.supported()),
        "engine": _core.engine,
        "threads": 1,
        "BLAS": f"{blas['name']} {blas['version']}",
        "BLAS threads": blas["threads"] or "unknown",
        "BLAS integers": f"{8 * _core.blas_int_size} bits",
        "Python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
    }


def show_config() -> None:
    """Print the version, the instruction set in use, BLAS and its threads, and ours.

    Examples
    --------
    >>> import gru_c
    >>> gru_c.show_config()  # doctest: +ELLIPSIS
    gru_c             ...
    """
    for name, value in config().items():
        print(f"{name:<17} {value}")

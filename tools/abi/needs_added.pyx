"""A package that needs the function that tools/check_abi.py adds."""

from gru_c.cython_gru cimport gru_added


def added(int n):
    return gru_added(n)

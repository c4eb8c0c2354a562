"""gru_c can be cimported: see cython_gru.pxd."""

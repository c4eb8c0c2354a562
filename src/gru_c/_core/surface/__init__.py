"""The C interface: what gru_c.h declares, over the calls of a model."""

"""The kernels, built for what every processor of the platform has."""
include "kernels.pxi"

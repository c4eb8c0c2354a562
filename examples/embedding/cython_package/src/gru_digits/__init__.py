"""Handwritten digits, classified in a nogil loop around gru_c."""

from .classifier import Classifier

__all__ = ["Classifier"]

"""Fitted models as files that others open without dpfc."""

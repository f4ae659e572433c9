"""Budgets that last."""

"""Scaling laws for knowledge distillation: find them, trust them, apply them."""

__version__ = "0.1.0"

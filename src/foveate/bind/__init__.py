"""Bindings: each turns a mechanism's parts and ops into one framework's native layers."""

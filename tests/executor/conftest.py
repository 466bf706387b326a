"""Fixtures of the executor tests."""

from tests.network import certificates_are_read_once, no_proxy, no_waiting_between_attempts

__all__ = ["certificates_are_read_once", "no_proxy", "no_waiting_between_attempts"]

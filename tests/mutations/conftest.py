"""Fixtures of the mutation tests: retries do not sleep."""

from tests.network import no_proxy, no_waiting_between_attempts

__all__ = ["no_proxy", "no_waiting_between_attempts"]

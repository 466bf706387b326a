"""Nothing waits between attempts."""

from tests.network import no_proxy, no_waiting_between_attempts

__all__ = ["no_proxy", "no_waiting_between_attempts"]

"""What a hosted deployment adds: who calls, limits, health, metrics, traces."""

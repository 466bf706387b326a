"""The parts of a hosted server: authentication and limits of callers, health, and telemetry."""

"""The iModels API (v2)."""

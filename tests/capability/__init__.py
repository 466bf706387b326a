"""Tests of capability files: reading, linking, selecting, exporting and caching."""

"""Tests of the emulated platform, through plain HTTP."""

"""Tests that need no machine: they mirror src/drbd_offsite."""

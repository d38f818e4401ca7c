"""Two real Debian machines in QEMU, driven by pytest."""

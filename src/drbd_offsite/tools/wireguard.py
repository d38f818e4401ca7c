"""wg(8) key handling; the private key goes through standard streams, never argv."""

Argv = tuple[str, ...]

MAKE_KEY: Argv = ("wg", "genkey")
PUBLIC_KEY: Argv = ("wg", "pubkey")

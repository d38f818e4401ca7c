"""One room per external program: how to call it, and how to read what it prints. All pure."""

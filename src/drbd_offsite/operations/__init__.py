"""Work of several steps that can be killed anywhere and is finished by the same command again."""

"""What to do, from what should be and what is. Pure: no clock, no files, no programs."""

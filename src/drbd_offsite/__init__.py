"""Off-site replication of LVM volumes with DRBD: every write copied to a second machine."""

"""The thin shell: watches, writes, measures. It decides nothing."""

"""Paretrim beside its peers: what each makes of one model, on one machine, in one runtime."""

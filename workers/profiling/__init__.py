"""How a latency table is measured: which operators, in which order and how often, and whole models beside them."""

"""Plug-ins for Paretrim, one module for each kind; an entry point names the module, which registers itself."""

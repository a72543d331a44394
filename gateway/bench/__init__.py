"""How fast is the gateway on this machine? Provider, load generator and rig of `manage.py bench`."""
